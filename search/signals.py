"""Ctrl-C, SIGTERM and the end of a terminal end a search in order; the second time they end it at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
from rich.console import Console

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def collected_signals(console: Console) -> Iterator[list[int]]:
    """Collect the first Ctrl-C, SIGTERM or SIGHUP in a list; a second kills this process and all that it started.

    Nothing is lost by the second one: what is recorded is recorded, and the run can be resumed. The end of a terminal
    is nothing to a search that was started to ignore it, by `nohup`.
    """
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, _: object) -> None:
        if received:
            leave_at_once(128 + number)
        received.append(number)
        console.print("stopping: the report follows; a second signal leaves at once")

    for one in _SIGNALS:
        if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN:
            previous[one] = signal.signal(one, note)
    try:
        yield received
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)


def leave_at_once(exit_code: int) -> None:
    """End this process and every process that it started, without another word."""
    # Ray's own processes would outlive a driver by some seconds.
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(exit_code)
