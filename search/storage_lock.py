"""One search at a time in a run that is kept in a storage, whatever machine it is worked on from.

A storage has no locks, and the clocks of two machines need not agree. So whoever works on a run leaves its name there
and writes it anew every few seconds; a name that does not change for a while is of a process that is no more.
"""

import json
import os
import platform
import threading
import time
import uuid
from types import TracebackType

import psutil

from search.errors import RunError, StorageError
from search.storage import Storage

LOCK = "lock"
BEAT_S = 10.0
# A holder that is silent for so long is taken for dead, and itself stops when it finds another's name.
LEASE_S = 45.0
# Two that find the place free at once: the later one's name stands after this.
_SETTLE_S = 1.0


class StorageLock:
    """Holds a run's folder in a storage until closed.

    Args:
        storage: the run's folder there.

    Attributes:
        lost: who holds the run instead, if anybody; empty while it is ours.

    Raises:
        RunError: another search works on the run.
        StorageError: the storage cannot be written.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._id = uuid.uuid4().hex
        self._beats = 0
        self.lost = ""
        _wait_until_free(storage)
        self._beat()
        time.sleep(_SETTLE_S)
        if not self._is_ours():
            raise RunError(f"{storage.uri}: in use by {self.lost}, expected no other search in it: wait for its end")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        self._beats += 1
        holder = {"id": self._id, "beat": self._beats, "host": platform.node(), "process": os.getpid()}
        self._storage.write(LOCK, json.dumps(holder).encode())

    def _is_ours(self) -> bool:
        found = _holder(self._storage)
        if found is None or found.get("id") == self._id:
            return True
        self.lost = _in_words(found)
        return False

    def _keep(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                if not self._is_ours():
                    return
                self._beat()
            except StorageError:
                continue  # told by whoever has something to bring there

    def __enter__(self) -> "StorageLock":
        """Hold the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of it."""
        self._over.set()
        self._thread.join()
        if not self.lost:
            try:
                self._storage.remove(LOCK)
            except StorageError:
                return  # found silent by whoever comes next


def _wait_until_free(storage: Storage) -> None:
    """Return when nobody holds the run, or its holder has been silent for a lease.

    Raises:
        RunError: its holder lives.
    """
    first = _holder(storage)
    if first is None or _died_here(first):
        return
    until = time.monotonic() + LEASE_S
    while time.monotonic() < until:
        time.sleep(1.0)
        now = _holder(storage)
        if now is None:
            return
        if now != first:
            raise RunError(
                f"{storage.uri}: in use by {_in_words(now)}, expected no other search in it: wait for its end, or stop "
                "it"
            )


def _holder(storage: Storage) -> dict[str, object] | None:
    data = storage.read(LOCK)
    if data is None:
        return None
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError):
        return {}


def _died_here(holder: dict[str, object]) -> bool:
    """Whether the holder was a process of this machine, which is no more."""
    process = holder.get("process")
    return holder.get("host") == platform.node() and isinstance(process, int) and not psutil.pid_exists(process)


def _in_words(holder: dict[str, object]) -> str:
    return f"process {holder.get('process', 'unknown')} on {holder.get('host', 'an unknown machine')}"
