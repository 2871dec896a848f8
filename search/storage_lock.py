"""One search at a time in a run that is kept in a storage, whatever machine it is worked on from.

A storage has no locks, and the clocks of two machines need not agree. So whoever works on a run leaves its name there
and writes it anew every few seconds. A name that has not changed for a while, by the storage's clock or before the eyes
of who asks, is of a process that is no more.
"""

import contextlib
import json
import math
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
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
_LOOK_INTERVAL_S = 1.0
# Goes on while the machine sleeps, where there is such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class StorageLock:
    """Holds a run's folder in a storage until closed.

    Args:
        storage: the run's folder there.
        on_lost: called once, from a thread, when another search holds the run; told where and who.

    Attributes:
        lost: who holds the run instead, if anybody; empty while it is ours.

    Raises:
        RunError: another search works on the run.
        StorageError: the storage cannot be written.
    """

    def __init__(self, storage: Storage, on_lost: Callable[[str], None]) -> None:
        self._storage = storage
        self._on_lost = on_lost
        self._id = uuid.uuid4().hex
        self._beats = 0
        self._known_s = 0.0
        self._asking = threading.Lock()
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
        holder = {
            "id": self._id, "beat": self._beats, "host": platform.node(), "process": os.getpid(), "among": _among(),
        }  # fmt: skip
        self._storage.write(LOCK, json.dumps(holder).encode())

    def _is_ours(self) -> bool:
        asked_s = time.clock_gettime(_CLOCK)
        found = _holder(self._storage)
        if found is None or found.get("id") == self._id:
            self._known_s = asked_s
            return True
        self.lost = _in_words(found)
        return False

    def confirm(self) -> bool:
        """Whether the run is still ours. Asks only if that was not known a moment ago, as after a sleep of the machine.

        Raises:
            StorageError: the storage does not answer.
        """
        return time.clock_gettime(_CLOCK) - self._known_s < LEASE_S / 2 or self._ask()

    def _ask(self) -> bool:
        with self._asking:
            if self.lost:
                return False
            if self._is_ours():
                return True
            self._known_s = -math.inf
            self._on_lost(f"{self._storage.uri}: {self.lost} works on it now")
            return False

    def _keep(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                if not self._ask():
                    return
                self._beat()
            except (StorageError, OSError):
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
        # Where it cannot be removed it is found silent by whoever comes next.
        with contextlib.suppress(StorageError, OSError):
            if not self.lost and self._is_ours():
                self._storage.remove(LOCK)


def _wait_until_free(storage: Storage) -> None:
    """Return when nobody holds the run, or its holder has been silent for a lease.

    Raises:
        RunError: its holder lives.
    """
    first = _holder(storage)
    if first is None or _died_here(first) or _silent_s(storage) > LEASE_S:
        return
    until = time.monotonic() + LEASE_S
    while time.monotonic() < until:
        time.sleep(_LOOK_INTERVAL_S)
        now = _holder(storage)
        if now is None:
            return
        if now != first:
            raise RunError(
                f"{storage.uri}: in use by {_in_words(now)}, expected no other search in it: wait for its end, or stop "
                "it"
            )


def _silent_s(storage: Storage) -> float:
    """How long the holder has been silent, in seconds, by the storage's own clock."""
    mark = f".{LOCK}-{uuid.uuid4().hex}"
    storage.write(mark, b"now")
    now, last = storage.found(mark), storage.found(LOCK)
    storage.remove(mark)
    return (now.written_ns - last.written_ns) / 1e9 if now is not None and last is not None else 0.0


def _holder(storage: Storage) -> dict[str, object] | None:
    data = storage.read(LOCK)
    if data is None:
        return None
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError):
        return {}


def _died_here(holder: dict[str, object]) -> bool:
    """Whether the holder was a process that would be seen from here, and is no more."""
    process = holder.get("process")
    near = bool(_among()) and holder.get("among") == _among()
    return near and isinstance(process, int) and not psutil.pid_exists(process)


def _among() -> str:
    """What tells processes that this one can see from all others; empty where nothing does.

    Machines made from one image may have one name, and containers of one machine do not see each other's processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _in_words(holder: dict[str, object]) -> str:
    return f"process {holder.get('process', 'unknown')} on {holder.get('host', 'an unknown machine')}"
