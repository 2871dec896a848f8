"""What every command line of the project shares: exit codes, errors without a traceback, and output that is lost."""

import contextlib
import errno
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from galaxy_models.errors import GalaxyError, MachineError

EXIT_INTERRUPTED = 130
_STANDARD_STREAMS = (1, 2)
# What a machine may answer that is no bug of ours, and what helps.
_REMEDIES = {
    errno.ENOSPC: "free some room or choose another place",
    errno.EDQUOT: "free some room or choose another place",
    errno.EFBIG: "allow larger files with ulimit -f, or choose another place",
    errno.EROFS: "choose another place",
    errno.EACCES: "change the permissions or choose another place",
    errno.EPERM: "change the permissions or choose another place",
    errno.EIO: "check the disk, or the network that it is on",
    errno.EMFILE: "allow more open files with ulimit -n, or use fewer processes",
    errno.ENFILE: "allow more open files with ulimit -n, or use fewer processes",
}


class EndedBySignal(SystemExit):
    """A signal ends this process: what a user's own code must not be blamed for. The code is 128 plus its number."""


def machine_fault(error: Exception, place: Path | str) -> MachineError | None:
    """Say what the machine refused, and what helps; None if the error is of another kind.

    Args:
        error: what was raised.
        place: where, if the error itself does not say.
    """
    remedy = _REMEDIES.get(error.errno or 0) if isinstance(error, OSError) else None
    if remedy is None or not isinstance(error, OSError):
        return None
    return MachineError(f"{error.filename or place}: {error.strerror}: {remedy}, then run again")


def run_command(command: Callable[[], int]) -> int:
    """Run a command and turn its failures into one message and an exit code.

    Args:
        command: the command's body; returns its exit code.

    Returns:
        The command's own code; 2 for a user's mistake; 1 for a fault that is nobody's mistake
        (a full disk, a failing one); 130 after Ctrl-C. Bugs keep their traceback.
    """
    try:
        code = command()
        if sys.stdout is not None:  # as Python has it where the file is closed
            sys.stdout.flush()  # here, since a reader that left is noticed only when the last words are written
        return code
    except GalaxyError as error:
        _tell(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output left (`| head`): close quietly, as Unix tools do.
        flush_or_lose(sys.stdout)
        return 1
    except OSError as error:
        fault = machine_fault(error, "the disk")
        if fault is None:
            raise
        flush_or_lose(sys.stdout)
        _tell(f"error: {fault}")
        return fault.exit_code
    except KeyboardInterrupt:
        _tell("interrupted")
        return EXIT_INTERRUPTED


def _tell(words: str) -> None:
    """Print on standard error, if it takes them: the exit code says the rest."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        print(words, file=sys.stderr)
    flush_or_lose(sys.stderr)


def let_go_of_dead_output() -> bool:
    """Put the null device in place of standard output and standard error where nobody is left to read them.

    Returns:
        Whether one of them was so.
    """
    poll = select.poll()
    for number in _STANDARD_STREAMS:
        poll.register(number, 0)  # a hang-up is told unasked
    dead = [number for number, events in poll.poll(0) if events & (select.POLLHUP | select.POLLERR)]
    for number in dead:
        _put_null_device(number)
    return bool(dead)


def flush_or_lose(stream: IO[str] | None) -> None:
    """Write what a stream holds back, or lose it: Python would try again when it ends, and give another exit code."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        _put_null_device(stream.fileno())


def _put_null_device(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
