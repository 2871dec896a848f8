"""Signals while Ray starts or ends: the code is the signal's, and Ray's end is not taken for a fault."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import ray

from search import cluster as module
from search.cluster import ended_by_signals, local_ray, running_ray


def exit_as_ray_does(number: int, _: object) -> NoReturn:
    sys.exit(number)


@pytest.mark.parametrize("handler", [None, exit_as_ray_does])
def test_sigterm_ends_with_its_code_also_where_ray_put_a_handler_of_its_own(handler: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)

    @ended_by_signals()
    def terminated() -> None:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit, match=r"^143$"):
        terminated()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def unheard() -> Iterator[list[int]]:
    """Hangups that nothing in the test's way caught."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGHUP, before)


def test_the_end_of_a_terminal_ends_with_its_code_and_its_second_notice_breaks_nothing_off(unheard: list[int]) -> None:
    tidied: list[str] = []

    @ended_by_signals()
    @ended_by_signals()
    def hung_up() -> None:
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGHUP)
            tidied.append("inside")

    with pytest.raises(SystemExit, match=r"^129$"):
        hung_up()
    signal.raise_signal(signal.SIGHUP)
    assert (tidied, unheard) == (["inside"], [])


def test_the_end_of_a_terminal_is_heard_by_others_afterwards(unheard: list[int]) -> None:
    with ended_by_signals():
        pass
    signal.raise_signal(signal.SIGHUP)
    assert unheard == [signal.SIGHUP]


@pytest.mark.usefixtures("unheard")
def test_what_nohup_ignores_ends_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ended_by_signals():
        signal.raise_signal(signal.SIGHUP)


def test_processes_of_ray_outlive_the_terminal_and_this_one_hears_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(ray, "init", lambda **_: children.append(subprocess.Popen(["sleep", "60"])))
    monkeypatch.setattr(module, "node_sizes", list)
    with local_ray("try again"):
        assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        children[0].send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert children[0].poll() is None
        children[0].terminate()  # which ends them, as ever
        assert children[0].wait(10) == -signal.SIGTERM


def test_other_ends_keep_their_code() -> None:
    with pytest.raises(SystemExit, match=r"^130$"), ended_by_signals():
        sys.exit(130)


def test_ctrl_c_while_ray_starts_is_no_death_of_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raylet").symlink_to(str(shutil.which("sleep")))
    left: list[int] = []
    monkeypatch.setattr(module, "_WATCH_INTERVAL_S", 0.05)
    monkeypatch.setattr(module, "leave_at_once", lambda code, words: left.append(code))

    def interrupted(**_: Any) -> None:
        child = subprocess.Popen([tmp_path / "raylet", "60"])
        children.append(child)
        time.sleep(0.3)  # for the watch to see it
        raise KeyboardInterrupt

    children: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(ray, "init", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^$"), local_ray("try again"):
        pytest.fail("it started")
    children[0].kill()
    children[0].wait()
    time.sleep(0.3)
    assert left == []


def test_a_ctrl_c_that_ray_passes_over_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def pass_over(**_: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ray, "init", pass_over)
    monkeypatch.setattr(module, "node_sizes", list)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"^$"), running_ray(None, "try again"):
        pytest.fail("it started")
    assert signal.getsignal(signal.SIGINT) == before
