"""A search whose terminal is gone, or whose reader left, says what it has to say to nobody, and ends in order."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from search.output import LastingOutput

# Its last words are in a file.
SEARCH = """
import signal, sys, time
from pathlib import Path
from rich.console import Console
from search.signals import collected_signals

console = Console()
with collected_signals(console) as received:
    print("ready", file=sys.stderr, flush=True)
    sys.stdin.readline()
    console.print("words to whoever is there")
    for _ in range(500):
        if received:
            break
        time.sleep(0.01)
    console.print("more")
    print("and more", flush=True)
    print("still more", file=sys.stderr, flush=True)
Path(sys.argv[1]).write_text(str(received))
"""


def start(place: Path, *, stdout: int, stderr: int) -> "subprocess.Popen[bytes]":
    # Nothing else sees to it that words are not held back.
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    words = [sys.executable, "-c", SEARCH, str(place)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=environment)


def read_line(number: int) -> bytes:
    """Of a file descriptor, and nothing behind it."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(number, 1)
        assert line, "it ended without a word"
    return line


@pytest.mark.parametrize(("silently", "to_file"), [(True, False), (False, False), (False, True)])
def test_words_for_a_terminal_that_is_gone_are_lost_and_nothing_else_is(
    tmp_path: Path, silently: bool, to_file: bool
) -> None:
    screen, terminal = os.openpty()
    with (tmp_path / "log").open("wb") as log:
        process = start(tmp_path / "end", stdout=log.fileno() if to_file else terminal, stderr=terminal)
    os.close(terminal)
    assert process.stdin is not None
    assert read_line(screen) == b"ready\r\n"
    os.close(screen)
    if not silently:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
    process.stdin.write(b"go on\n")
    process.stdin.flush()
    time.sleep(0.2)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=20)
    assert (process.returncode, (tmp_path / "end").read_text()) == (0, "[1]")
    if to_file:
        stopping = "stopping: the report follows; a second signal leaves at once"
        words = [stopping, "words to whoever is there", "more", "and more"]
        assert (tmp_path / "log").read_text().splitlines() == words


@pytest.mark.parametrize("leaves", ["before the signal", "after the signal"])
def test_a_reader_that_a_signal_ends_too_breaks_nothing_off(tmp_path: Path, leaves: str) -> None:
    readers, writers = os.pipe()
    process = start(tmp_path / "end", stdout=writers, stderr=writers)
    os.close(writers)
    assert process.stdin is not None
    assert read_line(readers) == b"ready\n"
    if leaves == "before the signal":
        os.close(readers)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    if leaves == "after the signal":
        assert read_line(readers).startswith(b"stopping: ")
        os.close(readers)
    process.communicate(b"go on\n", timeout=20)
    assert (process.returncode, (tmp_path / "end").read_text()) == (0, "[2]")


def test_a_reader_that_leaves_unasked_ends_a_search_as_ever(tmp_path: Path) -> None:
    readers, writers = os.pipe()
    process = start(tmp_path / "end", stdout=writers, stderr=writers)
    os.close(writers)
    assert read_line(readers) == b"ready\n"
    os.close(readers)
    process.communicate(b"go on\n", timeout=20)
    assert process.returncode == 1
    assert not (tmp_path / "end").exists()


class SmallLog(io.StringIO):
    """A log that may grow no further, which no waiting mends."""

    def flush(self) -> None:
        raise OSError(errno.EFBIG, "File too large")


def test_a_log_that_can_never_be_written_is_told() -> None:
    with pytest.raises(OSError, match="File too large"):
        LastingOutput(SmallLog()).write("words")


# Ends in a thread of its own, as the watches do, when nobody reads standard error.
WATCHED = """
import subprocess, sys, threading, time, types
import search.cluster as cluster
from search.remote_run import _leave

cluster._WATCH_INTERVAL_S = cluster._HEAD_INTERVAL_S = 0.05
cluster._HEAD_PATIENCE_S = 0.0
context = types.SimpleNamespace(gcs_address="127.0.0.1:1")
sys.modules["ray"] = types.SimpleNamespace(get_runtime_context=lambda: context)
cluster._is_vital = lambda process: process.pid == child.pid
child = subprocess.Popen(["sleep", "60"])
over = threading.Event()
target, words = {
    "ray": (cluster._watch, (over, "go on")),
    "head": (cluster._watch_head, (over, "go on")),
    "storage": (_leave, ("in use by another",)),
}[sys.argv[1]]
threading.Thread(target=target, args=words, daemon=True).start()
time.sleep(0.5)
child.kill()
time.sleep(20)
"""


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("ray", "error: Ray's process "),
        ("head", "error: the cluster's head 127.0.0.1 has not answered for "),
        ("storage", "error: in use by another, expected no other search in it"),
    ],
)
@pytest.mark.parametrize("is_read", [True, False])
def test_who_ends_a_search_at_once_does_so_whether_its_words_are_read_or_not(
    who: str, words: str, is_read: bool
) -> None:
    readers, writers = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", WATCHED, who], stderr=writers)
    os.close(writers)
    if is_read:
        assert read_line(readers).decode().startswith(words)
    os.close(readers)
    assert process.wait(timeout=15) == 1


class Disk(io.RawIOBase):
    """It has no room for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.has_room = False
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.has_room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += bytes(data)
        return len(data)


def test_words_for_a_log_on_a_full_disk_wait_until_there_is_room() -> None:
    disk = Disk()
    lasting = LastingOutput(io.TextIOWrapper(io.BufferedWriter(disk), encoding="utf-8"))
    waits = "the disk is full: the search waits for room\n"
    for _ in range(60):
        assert lasting.write(waits) == len(waits)
    disk.has_room = True
    lasting.write("it goes on\n")
    assert disk.written.decode() == waits * 60 + "it goes on\n"


# Standard output and standard error go to a disk that stays full.
ENDS = """
import sys
from rich.console import Console
from galaxy_models.cli import run_command
from galaxy_models.errors import GalaxyError
from search.output import LastingOutput
from search.signals import collected_signals

def command():
    console = Console()
    with LastingOutput.of(console):
        console.print("words of its preparation")
        with collected_signals(console):
            console.print("words that find no room")
    if sys.argv[1:]:
        raise GalaxyError("a mistake")
    return 0

sys.exit(run_command(command))
"""


@pytest.mark.parametrize("mistake", [False, True])
def test_a_disk_that_stays_full_gives_a_search_no_other_end(*, mistake: bool) -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-c", ENDS, *["x"] * mistake]
        # Nothing else sees to it that words are held back.
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        ended = subprocess.run(words, stdout=full, stderr=full, env=environment, check=False, timeout=60)
    assert ended.returncode == (2 if mistake else 0)


# A worker whose log's disk is full learns that another took its place.
REPLACED = """
import sys, types
import search.pulse

head = types.SimpleNamespace(internal_kv_exists=lambda *_: True, internal_kv_put=lambda *_: None)
search.pulse._head = lambda: head
try:
    search.pulse.Pulse("a", 1000.0).confirm()
except OSError:
    sys.exit(3)
"""


def test_a_worker_whose_place_is_taken_ends_though_it_cannot_say_so() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([sys.executable, "-c", REPLACED], stderr=full, check=False, timeout=60)
    assert ended.returncode == 1


# The sky is drawn before a search has begun: its bar is on the terminal.
PREPARES = """
import signal, sys, time
from rich.progress import track
from galaxy_models.cli import run_command
from search.cluster import ended_by_signals

def command():
    with ended_by_signals():
        for _ in track(range(1000)):
            time.sleep(0.02)
    return 0

sys.exit(run_command(command))
"""


def test_a_terminal_that_goes_while_a_search_is_prepared_ends_it_in_order() -> None:
    screen, terminal = os.openpty()
    words, environment = [sys.executable, "-c", PREPARES], {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    drawn = b""
    while b"Working" not in drawn:
        drawn += os.read(screen, 1000)
    os.close(screen)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 129
