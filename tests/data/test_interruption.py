"""The first signal is answered in order, the second at once; what was ignored from the start stays so."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from galaxy_models.data.interruption import end_by_signals, signals_held, signals_kept_off

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def heard_signals() -> Iterator[list[int]]:
    """The signals that came through to handlers that raise, as a command's do; the handlers are put back."""
    heard: list[int] = []

    def note(number: int, _: object) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in ENDINGS}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDINGS)
def test_a_held_signal_comes_at_the_end_of_the_block(number: int, heard_signals: list[int]) -> None:
    steps = []

    @signals_held()
    def block() -> None:
        signal.raise_signal(number)
        steps.append("the block goes on")

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        block()
    assert (steps, heard_signals) == (["the block goes on"], [number])


def test_a_second_signal_waits_no_longer_and_both_are_answered(heard_signals: list[int]) -> None:
    @signals_held()
    def block() -> None:
        signal.raise_signal(signal.SIGINT)
        assert heard_signals == []
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the block went on")

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        block()
    assert heard_signals == [signal.SIGINT, signal.SIGTERM]


def test_a_block_without_a_signal_leaves_the_handlers_as_they_were() -> None:
    before = [signal.getsignal(number) for number in ENDINGS]
    with signals_held():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in ENDINGS] == before


def test_a_process_that_is_kept_off_hears_nothing(heard_signals: list[int]) -> None:
    words = "import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
    with signals_kept_off():
        child = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert child.stdout.split() == [str(int(number)) for number in sorted(ENDINGS)]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint(ENDINGS)
    assert heard_signals == []


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_the_first_signal_is_an_exception(number: int, error: type[BaseException]) -> None:
    end_by_signals()
    with pytest.raises(error, match=r"^$" if error is KeyboardInterrupt else r"^143$"):
        signal.raise_signal(number)


@pytest.mark.parametrize("held", [False, True])
def test_the_second_signal_ends_the_process_at_once(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    end_by_signals()
    with contextlib.suppress(KeyboardInterrupt, SystemExit), signals_held() if held else contextlib.nullcontext():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert codes[:1] == [128 + signal.SIGTERM]


@pytest.mark.parametrize("held", [False, True])
def test_the_end_of_a_terminal_is_told_twice_and_is_no_second_signal(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    tidied: list[str] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    end_by_signals()

    def hung_up() -> None:
        try:
            with signals_held() if held else contextlib.nullcontext():
                signal.raise_signal(signal.SIGHUP)
                signal.raise_signal(signal.SIGHUP)
                assert held, "the block went on"
                tidied.append("the block")
        finally:
            signal.raise_signal(signal.SIGHUP)
            tidied.append("what was unfinished")

    with pytest.raises(SystemExit, match=r"^129$"):
        hung_up()
    assert (codes, tidied) == ([], ["the block"] * held + ["what was unfinished"])


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_that_is_ignored_from_the_start_stays_ignored(number: int, heard_signals: list[int]) -> None:
    signal.signal(number, signal.SIG_IGN)
    end_by_signals()
    signal.raise_signal(number)
    with signals_held():
        signal.raise_signal(number)
    assert signal.getsignal(number) == signal.SIG_IGN
    assert heard_signals == []


CONVERSION = """
import os, time
from galaxy_models.data.interruption import end_by_signals
from galaxy_models.data.progress import Progress

end_by_signals()
with Progress().counting(100) as advance:
    os.write(1, b"ready\\n")
    while True:
        advance()
        time.sleep(0.01)
"""


def test_a_progress_bar_on_a_terminal_that_is_gone_keeps_the_exit_code() -> None:
    screen, terminal = os.openpty()
    with subprocess.Popen([sys.executable, "-c", CONVERSION], stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.close(screen)
        process.send_signal(signal.SIGHUP)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        process.kill()
        assert process.wait() == 128 + signal.SIGHUP
