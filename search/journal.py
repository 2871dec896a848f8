"""The run's journal: Optuna's own format, written in whole steps, so that a kill leaves no half-told event.

Optuna appends and syncs every single fact. Here all facts of one event (a trial's start with its parameters, an epoch
with its decision) are appended in one write. Its last line ends with a blank before the line break, which JSON does
not mind: what follows the last such line is an event that was cut short, and is dropped when the run goes on.

Beside it lies a small file that says how much was written, without which a journal of which a copy has only the
beginning could not be told from that of a search that was killed.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from search.errors import FULL_DISK, RunError

JOURNAL = "study.journal"
END_OF_EVENT = b" \n"
# A power cut may take this much of the latest events with it; a killed process takes none.
SYNC_INTERVAL_S = 1.0
_REMEDY = "copy the run's folder again, whole"
_SIZE = ".size"


class RunJournal(BaseJournalBackend):
    """The journal of the one process that may write it, which holds the run's lock.

    Args:
        path: the file; made if there is none. An event that was cut short is removed from its end.
        wait: called with the error whenever the disk is full, before each further try; may raise to give up.
        on_write: called with the file's length whenever events were written.

    Raises:
        RunError: the file is no journal of a run.
    """

    def __init__(
        self,
        path: Path,
        *,
        wait: Callable[[OSError], None] | None = None,
        on_write: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._path = path
        self._wait = wait
        self._on_write = on_write
        self._events: list[bytes] = []
        self._unread: list[bytes] = []
        self._num_read = 0
        size = whole_bytes(path) if path.exists() else 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, size)
        self._size = self._synced = size
        self._synced_at = time.monotonic()
        self._inode = os.fstat(self._file).st_ino
        self._noted = os.open(size_path(path), os.O_WRONLY | os.O_CREAT, 0o644)
        if os.fstat(self._noted).st_size == 0:
            self._note_size()
            os.fsync(self._noted)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Take facts up; they are written by the next `commit`."""
        lines = [json.dumps(log, separators=(",", ":")).encode() for log in logs]
        self._events += lines
        self._unread += lines

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Give facts to the one storage that reads this journal, each once."""
        if log_number_from == 0 and self._num_read == 0 and self._size:
            for log in read_journal(self._path):
                self._num_read += 1
                yield log
        unread, self._unread = self._unread, []
        self._num_read += len(unread)
        for line in unread:
            yield json.loads(line)

    def commit(self, *, durable: bool = False) -> None:
        """Write what was taken up since the last time, as one event.

        Args:
            durable: bring it to the disk now, as what is told next (a deleted checkpoint) relies on it.

        Raises:
            OSError: the disk takes no more, and `wait` gave none or gave up by raising.
        """
        if self._events:
            self._write(b"\n".join(self._events) + END_OF_EVENT)
            self._events = []
        if durable or time.monotonic() - self._synced_at > SYNC_INTERVAL_S:
            os.fsync(self._file)
            self._synced, self._synced_at = self._size, time.monotonic()
            self._note_size()

    def _note_size(self) -> None:
        """Take down how long the journal is, in one write, and which file it is."""
        words = f"{self._size:020d} {self._synced:020d} {self._inode:020d}\n"
        # A size that stays smaller than the true one refuses nothing.
        with contextlib.suppress(OSError):
            os.pwrite(self._noted, words.encode(), 0)

    def _write(self, data: bytes) -> None:
        while True:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._file, view) :]
            except OSError as error:
                os.ftruncate(self._file, self._size)
                if error.errno not in FULL_DISK or self._wait is None:
                    error.filename = error.filename or str(self._path)
                    raise
                self._wait(error)
            else:
                self._size += len(data)
                self._note_size()
                self._on_write(self._size)
                return

    def close(self) -> None:
        """Bring everything to the disk and let go of the file."""
        self.commit(durable=True)
        os.close(self._file)
        os.close(self._noted)


class _NoLock(BaseJournalFileLock):
    """A reader takes no lock: it would need to write, and would stop the search for as long as it reads."""

    def acquire(self) -> bool:
        raise AssertionError("a reader wrote to the journal")

    def release(self) -> None:
        """Nothing was acquired."""


def reading_backend(path: Path) -> BaseJournalBackend:
    """A backend for reading a journal that another process may be writing.

    Raises:
        RunError: there is none.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file, expected the journal of a run: {_REMEDY}")
    return JournalFileBackend(str(path), lock_obj=_NoLock())


def whole_bytes(path: Path) -> int:
    """Length of a journal up to the end of its last whole event.

    Raises:
        RunError: it has no whole event.
    """
    size = path.stat().st_size
    block, tail = 2**20, b""
    with path.open("rb") as file:
        start = size
        while start > 0:
            stop, start = start, max(0, start - block)
            file.seek(start)
            tail = file.read(stop - start) + tail[: len(END_OF_EVENT)]
            found = tail.rfind(END_OF_EVENT)
            if found >= 0:
                return start + found + len(END_OF_EVENT)
    if size == 0:
        return 0
    raise RunError(f"{path}: not one whole event in {size:,} bytes, expected a run's journal: {_REMEDY}")


def size_path(path: Path) -> Path:
    """Where it is taken down how long a journal is."""
    return path.with_suffix(_SIZE)


def check_size(path: Path) -> None:
    """Check that a journal is all there: of one that was copied all that was written, else all that was synced.

    What a power cut takes of the latest events is no fault of the folder's, so it is not missed where it happened.

    Raises:
        RunError: it is shorter, or it was not taken down how long it is.
    """
    noted, found = size_path(path), path.stat()
    try:
        written, synced, inode = map(int, noted.read_text(encoding="ascii").split())
    except (OSError, ValueError) as error:
        raise RunError(f"{noted}: {error!r}, expected the size of {path.name}: {_REMEDY}") from None
    known = synced if found.st_ino == inode else written
    if found.st_size < known:
        raise RunError(f"{path}: {found.st_size:,} bytes, expected at least {known:,}: {_REMEDY}")


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Read a journal's facts.

    Raises:
        RunError: a line that is no JSON object.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                log = json.loads(line)
            except ValueError:
                log = None
            if not isinstance(log, dict):
                raise RunError(f"{path}: line {number} is damaged, expected a JSON object: {_REMEDY}")
            yield log
