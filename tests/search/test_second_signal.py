"""The first signal is noted; a second ends the process and all its children at once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BUSY = """
import subprocess, sys, time
from rich.console import Console
from search.signals import collected_signals

# A child that does not heed a signal, and a child of its own.
stubborn = (
    "import signal, subprocess, sys, time\\n"
    "for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(one, signal.SIG_IGN)\\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\\n"
    "print(child.pid, flush=True)\\n"
    "time.sleep(60)\\n"
)
with collected_signals(Console()) as received:
    child = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
    print(child.pid, flush=True)
    while True:  # a driver that is stuck
        try:
            time.sleep(60)
        except BaseException:
            pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_the_process_and_its_children_within_seconds(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
    out = process.stdout
    assert out is not None
    children = [int(out.readline()), int(out.readline())]
    process.send_signal(number)
    assert out.readline().startswith("stopping: the report follows; a second signal leaves at once")
    time.sleep(0.3)
    assert process.poll() is None
    assert all(map(psutil.pid_exists, children))
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    while any(Path(f"/proc/{pid}").exists() and _alive(pid) for pid in children):
        assert time.monotonic() - start < 5
        time.sleep(0.05)
    assert time.monotonic() - start < 5


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_end_of_a_terminal_is_nothing_to_a_search_that_ignores_it() -> None:
    process = subprocess.Popen(["nohup", sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
    out = process.stdout
    assert out is not None
    for _ in range(2):
        int(out.readline())
    process.send_signal(signal.SIGHUP)
    # The first that is heard: a second would end it.
    process.send_signal(signal.SIGTERM)
    assert out.readline().startswith("stopping: the report follows")
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM


def test_the_end_of_a_terminal_is_told_twice_and_is_no_second_signal() -> None:
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
    out = process.stdout
    assert out is not None
    for _ in range(2):
        int(out.readline())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM


def test_handlers_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from search.signals import collected_signals

    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with collected_signals(Console()) as received:
        signal.raise_signal(signal.SIGHUP)
        assert received == [signal.SIGHUP]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert "stopping" in capsys.readouterr().out
