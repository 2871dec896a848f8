"""What a search says, whose terminal or reader may be gone before it ends."""

import contextlib
from collections.abc import Iterator
from typing import IO, cast

from rich.console import Console

from galaxy_models.cli import flush_or_lose, let_go_of_dead_output
from search.errors import FULL_DISK


class LastingOutput:
    """Standard output that a search outlives: words for a terminal that is gone are lost.

    Those for a log on a full disk wait until there is room, as many as the stream's buffer takes, some thousand
    letters; the rest is lost, and so is what finds no room until the end, or at once where the stream has no buffer.

    A reader that left, as `head` does, still ends a search, but not one that a signal ends: Ctrl-C and the end of a
    terminal reach `tee`, too.

    Args:
        stream: standard output.

    Attributes:
        received: signals that came so far, which others take down.
        encoding: the stream's.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.received: list[int] = []
        self.encoding = getattr(stream, "encoding", "utf-8")

    def write(self, text: str) -> int:
        """Write at once, so that it is known whether it can be."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            if error.errno in FULL_DISK:
                return len(text)  # the stream tries again with what comes next
            if isinstance(error, BrokenPipeError) and not self.received:
                raise
            if not let_go_of_dead_output():
                raise
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back but what finds no room."""

    @classmethod
    @contextlib.contextmanager
    def of(cls, console: Console) -> Iterator["LastingOutput"]:
        """Let a console write to one, which ends with the block; it may be that it does already."""
        if isinstance(console.file, cls):
            yield console.file
            return
        output = cls(console.file)
        console.file = cast("IO[str]", output)
        try:
            yield output
        finally:
            output.end()

    def end(self) -> None:
        """Lose what still finds no room: else a search that went well would fail when its process ends."""
        flush_or_lose(self._stream)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Its file descriptor."""
        return self._stream.fileno()
