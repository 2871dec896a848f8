"""What a search says, whose terminal or reader may be gone before it ends."""

import os
import select
from collections.abc import Sequence
from typing import IO

_STANDARD_STREAMS = (1, 2)


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
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
    return bool(dead)


class LastingOutput:
    """Standard output that a search outlives: words for a terminal that is gone are lost, and nothing else is.

    A reader that left, as `head` does, still ends a search, but not one that a signal ends: Ctrl-C and the end of a
    terminal reach `tee`, too.

    Args:
        stream: standard output.
        received: signals that came so far.

    Attributes:
        encoding: the stream's.
    """

    def __init__(self, stream: IO[str], received: Sequence[int]) -> None:
        self._stream = stream
        self._received = received
        self.encoding = getattr(stream, "encoding", "utf-8")

    def write(self, text: str) -> int:
        """Write at once, so that it is known whether it can be."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            if isinstance(error, BrokenPipeError) and not self._received:
                raise
            if not let_go_of_dead_output():
                raise
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Its file descriptor."""
        return self._stream.fileno()
