"""Ctrl-C, SIGTERM and the end of a terminal end a search in order."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from rich.console import Console


@contextlib.contextmanager
def collected_signals(console: Console) -> Iterator[list[int]]:
    """Collect the first Ctrl-C, SIGTERM or SIGHUP in a list; a second has its usual effect."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, _: object) -> None:
        received.append(number)
        restore()
        console.print("stopping: the report follows; a second signal gives it up")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        restore()
