"""Ctrl-C, SIGTERM and the end of a terminal end a search in order; the second time they end it at once."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import psutil
from rich.console import Console

from galaxy_models.cli import let_go_of_dead_output
from search.output import LastingOutput

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def collected_signals(console: Console) -> Iterator[list[int]]:
    """Collect the first Ctrl-C, SIGTERM or SIGHUP in a list; a second kills this process and all that it started.

    Nothing is lost by the second one: what is recorded is recorded, and the run can be resumed. The end of a terminal
    is nothing to a search that was started to ignore it, by `nohup`, and no second signal: it is told twice, by the
    shell and when the shell ends.

    Args:
        console: what it prints from now on may fail to be read.
    """
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, _: object) -> None:
        if received and number == signal.SIGHUP:
            return
        if received:
            leave_at_once(128 + number)
        received.append(number)
        let_go_of_dead_output()
        console.print("stopping: the report follows; a second signal leaves at once")

    with LastingOutput.of(console) as output:
        received = output.received
        for one in _SIGNALS:
            if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN:
                previous[one] = signal.signal(one, note)
        try:
            yield received
        finally:
            for one, handler in previous.items():
                signal.signal(one, handler)


def leave_at_once(exit_code: int, last_words: str = "") -> None:
    """End this process and every process that it started, with a word on standard error if it takes one."""
    with contextlib.suppress(OSError):
        if last_words:
            print(last_words, file=sys.stderr, flush=True)
    # Ray's own processes would outlive a driver by some seconds.
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(exit_code)
