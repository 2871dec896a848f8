"""Ctrl-C, SIGTERM and the end of a terminal end a conversion in order; the second time they end it at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from galaxy_models.cli import EndedBySignal, let_go_of_dead_output

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_signals() -> None:
    """From now on the first signal ends this process by an exception, so that what is unfinished is removed.

    A second one ends it without another word: a wait for worker processes that an exception breaks off may never end.
    The end of a terminal is no second one: it is told twice, by the shell and when the shell ends.
    A signal that this process was started to ignore, by `nohup` or in a shell script's background, is ignored still.
    """
    received: list[int] = []

    def end(number: int, _: object) -> None:
        if received and number == signal.SIGHUP:
            return
        if received:
            os._exit(128 + number)  # worker processes see it, and end too
        received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # Else what is told on the way out to a terminal that is gone fails, and its error takes this one's place.
        let_go_of_dead_output()
        raise EndedBySignal(128 + number)

    for number in _ENDING_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let a signal wait for the end of the block; the second waits no longer, and both are answered there and then.

    Other threads than the main one hear no signals, so nothing is held there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, _: object) -> None:
        if held and number == signal.SIGHUP:
            return
        held.append(number)
        if len(held) > 1:
            hand_on()

    def hand_on() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        numbers = held.copy()
        held.clear()
        _raise_all(numbers)

    handlers = {number: signal.getsignal(number) for number in _ENDING_SIGNALS}
    try:
        for number in _ENDING_SIGNALS:
            signal.signal(number, hold)
        yield
    finally:
        hand_on()


@contextmanager
def signals_kept_off() -> Iterator[None]:
    """Start processes that no Ctrl-C reaches, nor do those that they start: the parent alone answers, and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _raise_all(numbers: list[int]) -> None:
    """Each in turn, although the handler of the one before raises an exception."""
    if not numbers:
        return
    try:
        signal.raise_signal(numbers[0])
    finally:
        _raise_all(numbers[1:])
