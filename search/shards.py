"""A survey's shards on every machine that trains: shared, or fetched once by each machine."""

import fcntl
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from galaxy_models.data.manifest import MANIFEST_NAME, Manifest
from galaxy_models.errors import GalaxyError
from search.errors import RunError, StorageError
from search.places import cache_dir
from search.storage import Storage, child_uri

# Below a storage that runs are kept in; no run's name begins like this.
SHARED = "_shards"


@dataclass(frozen=True)
class Shards:
    """Where a survey's shards lie for every machine.

    Attributes:
        path: the folder on the driver's machine, and on those that share its files.
        digest: the manifest's.
        uri: where a machine fetches them from; empty = all machines share the folder.
    """

    path: str
    digest: str
    uri: str = ""

    @classmethod
    def at(cls, folder: Path) -> "Shards":
        """The shards of a folder that all machines share."""
        return cls(str(folder.resolve()), Manifest.load(folder).digest)

    def local(self) -> Path:
        """The folder on this machine; the first who asks fetches it.

        Raises:
            RunError: what is to be fetched is another survey, or is not whole.
            StorageError: the storage does not answer.
        """
        return fetch_shards(self.uri, self.digest) if self.uri else Path(self.path)


def fetch_shards(uri: str, digest: str = "") -> Path:
    """Bring a survey's shards to this machine's cache, unless they are there; other processes wait meanwhile.

    Args:
        uri: the folder of shards in a storage.
        digest: of the manifest that is expected; empty = whichever is there.

    Returns:
        The folder on this machine.

    Raises:
        RunError: no survey there, another one, or one that is not whole.
        StorageError: the storage does not answer.
    """
    storage = Storage(uri)
    digest = digest or _manifest(storage).digest
    folder = _cached(digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _fetch(storage, folder, digest)
    return folder


def share_shards(folder: Path, manifest: Manifest, root: Storage) -> str:
    """Bring a survey of this machine to a storage, unless it is there; its URI.

    Args:
        folder: of the shards.
        manifest: of them.
        root: the storage that runs are kept in.
    """
    storage = Storage(shared_uri(root.uri, manifest.digest))
    there = storage.names()
    if MANIFEST_NAME not in there:
        for shard in _files(manifest):
            if shard not in there or there[shard].num_bytes != (folder / shard).stat().st_size:
                storage.put(folder / shard, shard)
        # Last: who finds it finds all.
        storage.put(folder / MANIFEST_NAME, MANIFEST_NAME)
    return storage.uri


def shared_uri(root: str, digest: str) -> str:
    """Where `share_shards` keeps a survey.

    Args:
        root: the URI of the storage that runs are kept in.
        digest: of the survey's manifest.
    """
    return child_uri(root, f"{SHARED}/{_short(digest)}")


def _files(manifest: Manifest) -> list[str]:
    return [shard.file for split in manifest.splits.values() for shard in split.shards]


def _cached(digest: str) -> Path:
    return cache_dir() / "shards" / _short(digest)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:16]


def _manifest(storage: Storage) -> Manifest:
    data = storage.read(MANIFEST_NAME)
    if data is None:
        raise RunError(f"{storage.uri}: no {MANIFEST_NAME} in it, expected a folder of shards: check --data")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST_NAME).write_bytes(data)
        try:
            return Manifest.load(folder)
        except GalaxyError as error:
            # The copy that was read is gone when this is.
            raise RunError(str(error).replace(folder, storage.uri)) from None


def _fetch(storage: Storage, folder: Path, digest: str) -> None:
    """Bring a survey here; the cache's lock is held. What an earlier try brought is not fetched again."""
    manifest = _manifest(storage)
    if manifest.digest != digest:
        raise RunError(
            f"{storage.uri}: the digest is {manifest.digest:.19}, expected {digest:.19}: the survey has changed "
            "since the search began; restore it, or begin a new search"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        for name in (*_files(manifest), MANIFEST_NAME):
            if not (partial / name).is_file() and not storage.get(name, partial / name):
                raise RunError(f"{storage.uri}: no {name} in it, expected what the manifest lists: upload it again")
        manifest.verify(partial)
    except GalaxyError as error:
        if isinstance(error, StorageError):
            raise
        # No later try shall find what was refused.
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, RunError):
            raise
        raise RunError(str(error).replace(str(partial), storage.uri)) from None
    partial.rename(folder)
