"""One search at a time in a run's folder."""

import errno
import fcntl
import os
import platform
from pathlib import Path
from types import TracebackType

from search.errors import RunError

LOCK = "lock"


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
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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

    def __enter__(self) -> "RunLock":
        """Hold the folder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of it."""
        os.close(self._file)
