"""A place outside this machine where runs and shards are kept: object storage, or whatever else pyarrow knows."""

import contextlib
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from search.errors import FULL_DISK, StorageError

# File systems on which an object appears whole or not at all, and where to rename one is to copy it.
_OBJECT_STORES = ("s3", "gcs", "abfs")
_BLOCK_BYTES = 2**20


class Kept(NamedTuple):
    """A file in a storage.

    Attributes:
        num_bytes: its size.
        written_ns: when it was written, by the storage's clock, in nanoseconds since 1970.
    """

    num_bytes: int
    written_ns: int


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

    The file system is first asked for when it is first used: a worker that starts while it does not answer can wait.
    All that use it raise StorageError where it refuses, does not answer, or is of no known kind.

    Args:
        uri: such as `s3://bucket/runs`, `gs://bucket/runs`, or `file:///shared/runs`.

    Raises:
        StorageError: the URI holds a key.
    """

    def __init__(self, uri: str) -> None:
        scheme, _, rest = uri.partition("://")
        if "@" in rest.partition("/")[0] or "secret" in rest.partition("?")[2].lower():
            # Not repeated: it would stand in records, logs and reports.
            raise StorageError(
                f"{scheme}://...: a key in the URI, expected none there: give keys by the environment, a profile or a "
                "machine's role"
            )
        self.uri = uri

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system, and the path of this folder on it."""
        from pyarrow import fs

        with self._told():
            system, base = fs.FileSystem.from_uri(_one_request_a_file(self.uri))
        return system, base.rstrip("/")

    @property
    def _fs(self) -> Any:
        return self._place[0]

    def child(self, name: str) -> "Storage":
        """A folder inside this one."""
        return Storage(child_uri(self.uri, name))

    def check(self) -> None:
        """Write, read and remove a file.

        Raises:
            StorageError: one of the three is refused.
        """
        # Two searches may begin at the same time.
        name = f".probe-{uuid.uuid4().hex}"
        self.write(name, b"probe")
        found = self.read(name)
        if found != b"probe":
            raise StorageError(
                f"{self.uri}: a file that was written reads {found!r}, expected what was written: check what else "
                "works on it, or choose another place"
            )
        self.remove(name)

    def write(self, name: str, data: bytes) -> None:
        """Write a file; who reads meanwhile finds the old one or the new one, whole."""
        path = self._path(name)
        folder, _, file = path.rpartition("/")
        whole_at_once = self._fs.type_name in _OBJECT_STORES
        # Of its own for each writer: two machines may write the same file.
        target = path if whole_at_once else f"{folder}/.{file}.{uuid.uuid4().hex[:8]}.partial"
        with self._told(missing_too=True):
            if not whole_at_once:
                self._fs.create_dir(folder, recursive=True)
            try:
                with self._fs.open_output_stream(target) as stream:
                    stream.write(data)
                if not whole_at_once:
                    self._fs.move(target, path)
            except BaseException:
                if not whole_at_once:
                    with contextlib.suppress(OSError):
                        self._fs.delete_file(target)
                raise

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
            with self._told():
                stream = self._fs.open_input_stream(self._path(name))
        except FileNotFoundError:
            return False
        # What this machine's disk refuses is not told as the storage's.
        with stream, partial.open("wb") as file:
            while data := self._read_on(stream):
                file.write(data)
        partial.replace(path)
        return True

    def _read_on(self, stream: Any) -> bytes:
        with self._told(missing_too=True):
            return bytes(stream.read(_BLOCK_BYTES))

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError), self._told():
            self._fs.delete_file(self._path(name))

    def found(self, name: str) -> Kept | None:
        """What a file is like; None if there is none."""
        from pyarrow import fs

        with self._told():
            info = self._fs.get_file_info(self._path(name))
        return Kept(info.size, info.mtime_ns or 0) if info.type == fs.FileType.File else None

    def names(self, below: str = "") -> dict[str, Kept]:
        """All files below a folder, by name; none where there is no such folder."""
        from pyarrow import fs

        selector = fs.FileSelector(self._path(below), recursive=True, allow_not_found=True)
        with self._told():
            infos = self._fs.get_file_info(selector)
        return {
            info.path.removeprefix(self._path("")).lstrip("/"): Kept(info.size, info.mtime_ns or 0)
            for info in infos
            if info.type == fs.FileType.File
        }

    def _path(self, name: str) -> str:
        base = self._place[1]
        return f"{base}/{name}" if name else base

    @contextlib.contextmanager
    def _told(self, *, missing_too: bool = False) -> Iterator[None]:
        """Turn what a file system raises into one message of ours.

        Args:
            missing_too: also that something is not there; else that stays as it is.
        """
        import pyarrow

        refused: tuple[Any, ...] = (OSError, pyarrow.ArrowException)
        try:
            yield
        except refused as error:
            if isinstance(error, FileNotFoundError) and not missing_too:
                raise
            if getattr(error, "errno", None) in FULL_DISK:
                raise  # told, and waited for, as that of any disk
            words = " ".join(str(error).split())
            raise StorageError(
                f"{self.uri}: {words:.300}, expected a place that can be read and written: check the name, the "
                "credentials and the network"
            ) from error
