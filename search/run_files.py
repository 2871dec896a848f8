"""What a process reads and writes of a run: in the run's folder itself, or by way of the run's storage."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from search.errors import FULL_DISK, StorageError, UnheardError
from search.places import cache_dir
from search.storage import Storage

# How long to wait for room or for the storage before trying again.
WAIT_S = 2.0
_T = TypeVar("_T")


class RunFiles:
    """The files of a run as one process sees them.

    Without a storage they lie in the run's folder, which is this machine's or on a file system that all machines share.
    With one, a worker writes into a folder of its own, brings each file to the storage, and fetches from there what
    another one left.

    Args:
        root: the folder to write into, laid out as the run's.
        storage: the run's folder in a storage; None without one.
        node_root: as `root`, for what only another worker of this machine has to find; None = the same folder.
        confirm: returns if this process may write, as no other took its place; to be asked before.
        tell: told what is waited for, again and again, and in the end, with an empty text, that it is no more.

    Attributes:
        root, node_root, confirm: see there.
    """

    def __init__(
        self,
        root: Path,
        storage: Storage | None,
        *,
        node_root: Path | None = None,
        confirm: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.root = root
        self.confirm = confirm
        self.node_root = node_root or root
        self._storage = storage
        self._tell = tell

    @classmethod
    def of_worker(
        cls,
        run_dir: Path,
        storage: str | None,
        *,
        confirm: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda words: None,
    ) -> "RunFiles":
        """The files as a worker sees them.

        Args:
            run_dir: the run's folder on the driver's machine.
            storage: the URI of the run's folder in a storage; None without one.
            confirm: see `RunFiles`.
            tell: likewise.
        """
        if storage is None:
            return cls(run_dir, None, confirm=confirm, tell=tell)
        # Machines may share a home, with the cache in it; processes of another cannot be seen from here.
        node_root = cache_dir() / "workers" / run_dir.name / platform.node()
        _remove_those_of_the_dead(node_root)
        return cls(node_root / str(os.getpid()), Storage(storage), node_root=node_root, confirm=confirm, tell=tell)

    def why_wait(self, error: Exception) -> str:
        """What is waited for where an error will pass by itself: a full disk, a storage; empty where it will not."""
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            return f"{error.filename or self.root}: the disk is full: waiting for room"
        if isinstance(error, UnheardError):
            return f"waiting: {error}"
        return f"waiting for the storage: {error}" if isinstance(error, StorageError) else ""

    def until_done(self, work: Callable[[], _T], *, received: Sequence[int] = ()) -> _T:
        """Do something with files; while the disk is full or the storage does not answer, wait and do it again.

        Args:
            work: what to do.
            received: signals that came; the first ends the waiting.

        Returns:
            What it returns.

        Raises:
            OSError, StorageError: what was waited for when a signal came; of an OSError, any but a full disk at once.
        """
        waited = False
        while True:
            try:
                result = work()
            except (OSError, StorageError) as error:
                if received or not (words := self.why_wait(error)):
                    raise
                self._tell(words)
                waited = True
                time.sleep(WAIT_S)
                continue
            if waited:
                self._tell("")
            return result

    def clear(self) -> None:
        """Remove a worker's own copies; what was kept stays in the storage."""
        if self.root != self.node_root:
            shutil.rmtree(self.root, ignore_errors=True)

    def fetch(self, path: Path) -> bool:
        """Bring a file as it was last kept, whichever process kept it; whether there is one.

        Raises:
            StorageError: the storage cannot be reached.
        """
        return path.exists() if self._storage is None else self._storage.get(self._name(path), path)

    def keep(self, path: Path) -> None:
        """Let other machines have a file that was written.

        Raises:
            StorageError: the storage cannot be reached, or `confirm` cannot tell.
        """
        if self._storage is not None:
            self.confirm()
            self._storage.put(path, self._name(path))

    def drop(self, path: Path) -> None:
        """Remove a worker's own copy of a file; what was kept stays in the storage."""
        if self._storage is not None:
            path.unlink(missing_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a file, here and in the storage.

        Raises:
            StorageError: the storage cannot be reached, or `confirm` cannot tell.
        """
        self.confirm()
        path.unlink(missing_ok=True)
        if self._storage is not None:
            self._storage.remove(self._name(path))

    def remove_folder(self, folder: Path) -> None:
        """Remove a folder with all that is in it, here and in the storage.

        Raises:
            StorageError: the storage cannot be reached.
        """
        shutil.rmtree(folder, ignore_errors=True)
        if self._storage is not None:
            for name in self._storage.names(self._name(folder)):
                self._storage.remove(name)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _remove_those_of_the_dead(node_root: Path) -> None:
    """Remove the folders of workers that were killed on this machine: a few large checkpoints each."""
    for folder in node_root.iterdir() if node_root.is_dir() else ():
        if folder.name.isdecimal() and not psutil.pid_exists(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
