"""One search at a time in a run's folder."""

import errno
import fcntl
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from search.errors import RunError

LOCK = "lock"
# For a moment, whoever asks `read_holder` keeps others from the lock.
_ASK_AGAIN_S = 0.05


class RunLock:
    """Holds a run's folder until closed. The system lets go of it when the process dies, however it dies.

    Args:
        run_dir: the run's folder.

    Raises:
        RunError: another search holds it, or the folder cannot be written.
    """

    def __init__(self, run_dir: Path) -> None:
        path = run_dir / LOCK
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(
                f"{run_dir}: {error.strerror}, expected a folder that can be written: change its permissions, or copy "
                "the run elsewhere and resume the copy"
            ) from None
        try:
            self._acquire()
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(self._file)
                raise RunError(
                    f"{path}: cannot be locked ({error.strerror}), expected a file system with locks: without them two "
                    "searches could write the same run; keep runs elsewhere, with --runs-dir"
                ) from None
            holder = os.read(self._file, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(self._file)
            raise RunError(
                f"{run_dir}: in use by {holder}, expected no other search in it: wait for its end, or stop it"
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"process {os.getpid()} on {platform.node()}\n".encode())

    def _acquire(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_ASK_AGAIN_S)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __enter__(self) -> "RunLock":
        """Hold the folder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of it."""
        os.close(self._file)


@dataclass(frozen=True)
class Holder:
    """Who holds a run's folder, or held it last.

    Attributes:
        name: as `process 12 on host`; empty if nobody ever did.
        holds: whether it still does; None where that cannot be told from here, as from another machine.
    """

    name: str
    holds: bool | None


def read_holder(run_dir: Path) -> Holder:
    """Ask who holds a run's folder; whoever may read it may ask."""
    try:
        file = os.open(run_dir / LOCK, os.O_RDONLY)
    except OSError:
        return Holder("", None)
    try:
        name = os.read(file, 200).decode("utf-8", "replace").strip()
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # A free lock says something only where the holder's would be seen.
        return Holder(name, False if name.endswith(f" on {platform.node()}") else None)
    except BlockingIOError:
        return Holder(name, True)
    except OSError:
        return Holder(name, None)
    finally:
        os.close(file)
