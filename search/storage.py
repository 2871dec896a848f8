"""A place outside this machine where runs and shards are kept: object storage, or whatever else pyarrow knows."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search.errors import FULL_DISK, StorageError

# File systems on which an object appears whole or not at all, and where to rename one is to copy it.
_OBJECT_STORES = ("s3", "gcs", "abfs")
_PROBE = ".probe"


def is_uri(text: object) -> bool:
    """Whether a place is named by a URI, such as `s3://bucket/runs`, and not by a path of this machine."""
    return "://" in str(text)


def child_uri(uri: str, name: str) -> str:
    """The folder of a name inside the one that a URI names."""
    path, question, query = uri.partition("?")
    return f"{path.rstrip('/')}/{name}{question}{query}"


def parent(uri: str) -> str:
    """The folder that a URI's last part lies in."""
    path, question, query = uri.partition("?")
    return f"{path.rstrip('/').rpartition('/')[0]}{question}{query}"


def _one_request_a_file(uri: str) -> str:
    """Ask S3 for a small file in one request instead of three: a search writes many small ones."""
    option = "allow_delayed_open"
    if not uri.startswith("s3://") or option in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{option}=true"


class Storage:
    """A folder on a file system that is named by a URI. Names inside it are relative, with `/` between their parts.

    Args:
        uri: such as `s3://bucket/runs`, `gs://bucket/runs`, or `file:///shared/runs`.

    Raises:
        StorageError: no file system of that kind, or no credentials for it.
    """

    def __init__(self, uri: str) -> None:
        from pyarrow import fs

        self.uri = uri
        with self._told():
            self._fs, base = fs.FileSystem.from_uri(_one_request_a_file(uri))
        self._base = base.rstrip("/")

    def child(self, name: str) -> "Storage":
        """A folder inside this one."""
        return Storage(child_uri(self.uri, name))

    def check(self) -> None:
        """Write, read and remove a file.

        Raises:
            StorageError: one of the three is refused.
        """
        self.write(_PROBE, b"probe")
        with self._told():
            found = self.read(_PROBE)
        if found != b"probe":
            raise StorageError(f"{self.uri}: a file that was written reads {found!r}, expected what was written")
        self.remove(_PROBE)

    def write(self, name: str, data: bytes) -> None:
        """Write a file; who reads meanwhile finds the old one or the new one, whole."""
        path = self._path(name)
        whole_at_once = self._fs.type_name in _OBJECT_STORES
        with self._told():
            if not whole_at_once:
                self._fs.create_dir(path.rpartition("/")[0], recursive=True)
            target = path if whole_at_once else f"{path}.partial"
            with self._fs.open_output_stream(target) as stream:
                stream.write(data)
            if not whole_at_once:
                self._fs.move(target, path)

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none."""
        try:
            with self._told(), self._fs.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def put(self, path: Path, name: str) -> None:
        """Bring a file of this machine here."""
        self.write(name, path.read_bytes())

    def get(self, name: str, path: Path) -> bool:
        """Bring a file from here to this machine, where it appears whole or not at all; false if there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            with self._told(), self._fs.open_input_stream(self._path(name)) as stream, partial.open("wb") as file:
                shutil.copyfileobj(stream, file, 2**20)
        except FileNotFoundError:
            return False
        partial.replace(path)
        return True

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError), self._told():
            self._fs.delete_file(self._path(name))

    def names(self, below: str = "") -> dict[str, int]:
        """Names of all files below a folder, and their sizes in bytes; none where there is no such folder."""
        from pyarrow import fs

        selector = fs.FileSelector(self._path(below), recursive=True, allow_not_found=True)
        with self._told():
            infos = self._fs.get_file_info(selector)
        return {
            info.path.removeprefix(self._base).lstrip("/"): info.size for info in infos if info.type == fs.FileType.File
        }

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what a file system raises into one message of ours; that a file is not there stays as it is."""
        import pyarrow

        refused: tuple[Any, ...] = (OSError, pyarrow.ArrowException)
        try:
            yield
        except FileNotFoundError:
            raise
        except refused as error:
            if getattr(error, "errno", None) in FULL_DISK:
                raise  # this machine's
            words = " ".join(str(error).split())
            raise StorageError(
                f"{self.uri}: {words:.300}, expected a place that can be read and written: check the name, the "
                "credentials and the network"
            ) from error
