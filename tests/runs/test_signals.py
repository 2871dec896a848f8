"""Ctrl-C, SIGTERM, a terminal's end: the first ends a search in order, the second at once; no process is left."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blobs import SPACE, descendants, run, run_here, start, without_ray
from optuna.trial import TrialState

from search.run import main as search
from search.status import main as tell_status
from search.study import load_studies


def start_and_wait(
    survey: Path, folder: Path, *words: str, terminal: int | None = None, read: Callable[[], object] = lambda: None
) -> "subprocess.Popen[str]":
    """A search that has begun to train, and whose terminal, if it has one, is read meanwhile."""
    (folder / "one.py").write_text(SPACE)
    words = ("--space", "one.py", "--data", str(survey), "--name", "cut", "--num-trials", "500", *words)
    process = start(folder, *words, terminal=terminal)
    journal = folder / "runs" / "cut" / "study.journal"
    deadline = time.monotonic() + 100
    while not (journal.is_file() and b"epoch:1" in journal.read_bytes()):
        read()
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


def wait_until_gone(pids: set[int], seconds: float) -> set[int]:
    """Those of the processes that are still there after so many seconds; one that only its parent must bury is gone."""
    deadline = time.monotonic() + seconds
    while (left := {pid for pid in pids if lives(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def status(folder: Path) -> dict[str, Any]:
    code, out, err = run_here(folder, tell_status, "runs/cut", "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def wait_for_a_place(folder: Path) -> None:
    """Until the driver has written where a trial runs."""
    deadline = time.monotonic() + 60
    while not any(one["address"] for one in json.loads((folder / "runs" / "cut" / "live.json").read_text())["running"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def interrupt(survey: Path, folder: Path, number: signal.Signals, *words: str) -> None:
    """A search that a signal ends, with a report and without a process left."""
    process = start_and_wait(survey, folder, *words)
    ours = descendants(process.pid)
    assert len(ours) > 3
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert "report: " in out
    check_end(folder, ours, number)


def check_end(folder: Path, ours: set[int], number: signal.Signals) -> None:
    """A report is there, and none of our processes; the record of the run says how it ended."""
    page = (folder / "runs" / "cut" / "report" / "report.md").read_text()
    assert "The search ended before its last trial: interrupted." in page
    assert wait_until_gone(ours, 10) == set()
    after = status(folder)
    assert (after["state"], after["reason"], after["exit_code"]) == ("ended", "interrupted", 128 + number)
    assert after["live"]["ended"]
    assert after["spent"]["epochs"] > 0
    # Those that were running are not given up: they have a state each to go on from.
    states = Counter(one.state for one in load_studies(folder / "runs" / "cut")["one"].get_trials())
    assert len(list((folder / "runs" / "cut" / "states" / "one").iterdir())) <= states[TrialState.RUNNING]


def test_ctrl_c_ends_with_a_report_and_no_process_left(survey: Path, tmp_path: Path) -> None:
    interrupt(survey, tmp_path, signal.SIGINT)


def test_the_end_of_a_terminal_ends_with_a_report_and_no_process_left(survey: Path, tmp_path: Path) -> None:
    screen, terminal = os.openpty()
    os.set_blocking(screen, False)
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            shown.extend(os.read(screen, 2**16))

    process = start_and_wait(survey, tmp_path, "--max-concurrent", "1", terminal=terminal, read=read)
    os.close(terminal)
    ours = descendants(process.pid)
    assert len(ours) > 3
    assert b"machine  1 trial at a time" in shown
    os.close(screen)
    # The shell tells it to all of the group, and when the shell ends they are told again.
    for _ in range(2):
        os.killpg(process.pid, signal.SIGHUP)
        time.sleep(0.2)
    process.wait(timeout=120)
    assert process.returncode == 128 + signal.SIGHUP
    check_end(tmp_path, ours, signal.SIGHUP)


def test_after_sigterm_the_final_training_is_still_to_be_had(
    survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(survey, tmp_path, signal.SIGTERM, "--max-concurrent", "1")
    # Nothing more is to be searched, but the final training is still to be had.
    words = ("--num-trials", "500", "--epoch-budget", "1", "--final-seeds", "1")
    code, out, err = run(tmp_path, "--resume", "runs/cut", *words)
    assert code == 0, err
    assert "test accuracy" in out
    assert "epoch budget: " in out
    without_ray(monkeypatch)
    code, _, err = run_here(tmp_path, search, "--resume", "runs/cut", *words)
    assert code == 2
    assert "expected some left, or a final training to finish: give more with --epoch-budget" in err


def test_a_second_signal_leaves_at_once(survey: Path, tmp_path: Path) -> None:
    process = start_and_wait(survey, tmp_path)
    ours = descendants(process.pid)
    wait_for_a_place(tmp_path)
    during = status(tmp_path)
    assert during["state"] == "searching"
    (node,) = during["live"]["nodes"]
    assert node["alive"]
    assert {one["address"] for one in during["live"]["running"]} <= {node["address"], ""}
    assert during["backbones"][0]["best"] > 0
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert any(line.startswith("stopping: ") for line in process.stdout)
    process.send_signal(signal.SIGINT)
    start_s = time.monotonic()
    process.communicate(timeout=30)
    assert wait_until_gone(ours, 5 - (time.monotonic() - start_s)) == set()
    assert time.monotonic() - start_s < 5
    assert process.returncode == 128 + signal.SIGINT
    assert status(tmp_path)["state"] == "dead"
    # What was recorded is there.
    assert any(one.intermediate_values for one in load_studies(tmp_path / "runs" / "cut")["one"].get_trials())


def wait_for_ray(process: "subprocess.Popen[str]") -> set[int]:
    """Until Ray's first process is there; all processes that were started till then."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        ours = descendants(process.pid)
        if any("gcs_server" in command_line(pid) for pid in ours):
            return ours
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.parametrize(("number", "delay_s"), [(signal.SIGTERM, 0.0), (signal.SIGINT, 0.7)])
def test_a_signal_while_ray_starts_leaves_no_process_and_a_run_to_go_on_with(
    survey: Path, tmp_path: Path, number: signal.Signals, delay_s: float
) -> None:
    (tmp_path / "one.py").write_text(SPACE)
    process = start(tmp_path, "--space", "one.py", "--data", str(survey), "--name", "cut")
    wait_for_ray(process)
    time.sleep(delay_s)
    ours = descendants(process.pid)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert wait_until_gone(ours, 10) == set()
    assert "died" not in err
    after = status(tmp_path)
    assert (after["state"], after["exit_code"]) == ("ended", 128 + number)


# In the driver: it ends itself while it writes the report.
ENDS_IN_REPORT = """
import os
import signal
import sys
if "search.run" in sys.orig_argv:
    import search.job as job
    write_report = job.write_report
    def interrupted(run_dir):
        os.kill(os.getpid(), signal.SIGTERM)
        return write_report(run_dir)
    job.write_report = interrupted
"""


def test_sigterm_while_the_report_is_written_gives_its_code_and_hides_no_fault(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ENDS_IN_REPORT)
    (tmp_path / "one.py").write_text(SPACE.replace("trial.number == 5", "True"))
    words = ("--space", "one.py", "--data", str(survey), "--name", "cut", "--num-trials", "1")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    code, out, err = run(tmp_path, *words, PYTHONPATH=path)
    assert code == 143, err
    assert "report: " in out
    assert "error: runs/cut: No trial ended with a value" in err
    after = status(tmp_path)
    assert (after["state"], after["exit_code"]) == ("ended", 143)
