"""Tells how far a long job is: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_LINE_EVERY_S = 10.0


class Progress:
    """Says what happens on a stream.

    Args:
        stream: where to; None = standard error, so that standard output carries the result alone.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr

    def say(self, text: str) -> None:
        """Write one line."""
        print(text, file=self._stream, flush=True)

    @contextmanager
    def counting(self, total: int) -> Iterator[Callable[[], None]]:
        """Count galaxies.

        Args:
            total: how many there will be.

        Yields:
            A function to call once for each.
        """
        if self._stream.isatty():
            with self._bar(total) as advance:
                yield advance
        else:
            yield self._lines(total)

    @contextmanager
    def _bar(self, total: int) -> Iterator[Callable[[], None]]:
        from rich import progress as rich_progress
        from rich.console import Console

        columns = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeRemainingColumn(),
        )
        with rich_progress.Progress(*columns, console=Console(file=self._stream)) as bar:
            task = bar.add_task("galaxies", total=total)
            yield lambda: bar.advance(task)

    def _lines(self, total: int) -> Callable[[], None]:
        done, due = 0, 0.0

        def advance() -> None:
            nonlocal done, due
            done += 1
            if done == 1:
                # Worker processes take seconds to start: that is no progress to tell of.
                due = time.monotonic() + _LINE_EVERY_S
            elif time.monotonic() >= due:
                due = time.monotonic() + _LINE_EVERY_S
                self.say(f"{done:,} of {total:,} galaxies")

        return advance
