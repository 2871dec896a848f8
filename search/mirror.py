"""Brings what the driver writes of a run to the run's storage, in the order in which it was written.

A thread of its own does it, so that a slow network does not slow the search. The storage then always holds what the
run's folder held a moment before: if this machine is lost, trials whose last epochs had not arrived tell them again
from their checkpoints, which workers bring to the storage themselves, before they tell.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from search.entry import Entry
from search.errors import StorageError
from search.files import STATES, WEIGHTS, unwanted
from search.journal import whole_bytes
from search.storage import Kept, Storage

SEGMENTS = "journal"
# An object cannot be appended to: the journal is kept in segments, of which the last is written again as it grows.
SEGMENT_BYTES = 2**18
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0
# How long a search that has ended waits for a storage that cannot be reached.
PATIENCE_S = 60.0
_TELL_INTERVAL_S = 60.0
# A call to a storage ends within about this, by the time limits and retries of pyarrow's clients.
_LAST_CALL_S = 60.0
_LOOK_INTERVAL_S = 0.1
_SWEEP = "sweep:"


@dataclass(frozen=True)
class _Job:
    """Something to be done with the storage, repeated until it succeeds.

    Attributes:
        work: what to do.
        key: what it concerns.
    """

    work: Callable[[], None]
    key: str


def segment_name(start: int) -> str:
    """Where the journal's bytes from here on lie in the storage."""
    return f"{SEGMENTS}/{start:015d}.log"


def segment_starts(names: Mapping[str, Kept]) -> list[tuple[int, int]]:
    """Start and length of the journal's segments among a storage's files, in order, up to the first gap."""
    found = sorted(
        (int(name[len(SEGMENTS) + 1 : -4]), one.num_bytes) for name, one in names.items() if _is_segment(name)
    )
    whole: list[tuple[int, int]] = []
    for start, size in found:
        if start == (sum(whole[-1]) if whole else 0):
            whole.append((start, size))
    return whole


def _is_segment(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder == SEGMENTS and file.endswith(".log") and file[:-4].isdecimal()


class Mirror:
    """One run's way to its storage.

    Args:
        run_dir: the run's folder on this machine.
        journal: the run's journal, of whose beginning the storage has a part, or all.
        storage: the run's folder in the storage.
        say: prints a line for the user.
        ours: asked before anything is done there; where it says no, nothing is done any more.

    Attributes:
        uri: the run's folder in the storage.
    """

    def __init__(
        self,
        run_dir: Path,
        journal: Path,
        storage: Storage,
        *,
        say: Callable[[str], None],
        ours: Callable[[], bool] = lambda: True,
    ) -> None:
        self.uri = storage.uri
        self._run_dir = run_dir
        self._journal = journal
        self._storage = storage
        self._say = say
        self._ours = ours
        starts = segment_starts(storage.names(SEGMENTS))
        # The last one goes on growing.
        self._segment, self._sent = (starts[-1][0], sum(starts[-1])) if starts else (0, 0)
        self._size = self._sent
        self._jobs: deque[_Job] = deque()
        self._current: _Job | None = None
        self._changed = threading.Condition()
        self._give_up_at = float("inf")
        self._told_at = -float("inf")
        if journal.is_file() and (size := whole_bytes(journal)) > self._sent:
            # An earlier session could not bring all of it.
            self.committed(size)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def committed(self, size: int) -> None:
        """The journal is whole up to here."""
        with self._changed:
            self._size = size
            # What is still to be done brings it along, unless something else was asked for since.
            if not self._jobs or self._jobs[-1].key != SEGMENTS:
                self._jobs.append(_Job(self._send_journal, SEGMENTS))
            self._changed.notify()

    def put(self, path: Path) -> None:
        """Bring a file of the run's folder, as it is when its turn has come; one that is gone then is passed over."""
        name = path.relative_to(self._run_dir).as_posix()

        def send() -> None:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return
            # It may have been written anew since, and know more of the journal than has arrived.
            self._send_journal()
            self._storage.write(name, data)

        with self._changed:
            # While the storage does not answer, the driver's sign of life alone would make a job of every few seconds.
            if all(job.key != name for job in self._jobs):
                self._jobs.append(_Job(send, name))
            self._changed.notify()

    def put_below(self, folder: Path) -> None:
        """Bring all files below a folder of the run's."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                self.put(path)

    def sweep(self, space: str, *, live: Mapping[int, Entry], best: Collection[Entry], num_known: int) -> None:
        """Remove checkpoints that are not wanted any more; see `files.unwanted`."""
        live, best = dict(live), list(best)

        def remove() -> None:
            for folder in (WEIGHTS, STATES):
                names = self._storage.names(f"{folder}/{space}")
                for name in unwanted(names, space, live=live, best=best, num_known=num_known):
                    self._storage.remove(name)

        with self._changed:
            key = f"{_SWEEP}{space}"
            # A later one removes what an earlier one would have, but not before the journal says why.
            kept = [job for job in self._jobs if job.key != key]
            self._jobs = deque([*kept, _Job(remove, key)])
            self._changed.notify()

    def close(self) -> bool:
        """Wait until all is done, at most a minute longer than the storage can be reached; whether it is."""
        with self._changed:
            self._give_up_at = time.monotonic() + PATIENCE_S
            self._changed.notify()
        # A call that never returns is not waited for either.
        while self._thread.is_alive() and time.monotonic() < self._give_up_at + _LAST_CALL_S:
            self._thread.join(_LOOK_INTERVAL_S)
        return not self._jobs and self._current is None

    def _send_journal(self) -> None:
        with self._changed:
            target = self._size
        if target == self._sent:
            return
        with self._journal.open("rb") as file:
            file.seek(self._segment)
            data = file.read(target - self._segment)
        if len(data) < target - self._segment:
            raise StorageError(
                f"{self._journal}: {self._segment + len(data):,} bytes, expected {target:,}, which were written: the "
                "file was changed by something else; leave it alone"
            )
        self._storage.write(segment_name(self._segment), data)
        self._sent = target
        if len(data) >= SEGMENT_BYTES:
            self._segment = target

    def _work(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._current or self._is_closing())
                if self._current is None:
                    if not self._jobs:
                        return
                    self._current = self._jobs.popleft()
            try:
                if not self._ours():
                    return
                self._current.work()
            except (StorageError, OSError) as error:
                if time.monotonic() > self._give_up_at:
                    return
                self._tell(error)
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            wait_s = _FIRST_WAIT_S
            with self._changed:
                self._current = None
                if self._is_closing():
                    # Whatever gets through shows that waiting is worth it.
                    self._give_up_at = time.monotonic() + PATIENCE_S

    def _is_closing(self) -> bool:
        return self._give_up_at < float("inf")

    def _tell(self, error: StorageError | OSError) -> None:
        if time.monotonic() - self._told_at > _TELL_INTERVAL_S:
            self._told_at = time.monotonic()
            self._say(f"the storage lacks the latest of the run; the search goes on and tries again: {error}")
