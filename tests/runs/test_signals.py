"""Ctrl-C and SIGTERM: the first ends a search in order, the second at once; no process of ours is left."""

import signal
import time
from pathlib import Path

import pytest
from blobs import SPACE, descendants, start
from optuna.trial import TrialState

from search.study import load_studies


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_report_and_no_process_left(survey: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "one.py").write_text(SPACE)
    process = start(tmp_path, "--space", "one.py", "--data", str(survey), "--name", "cut", "--num-trials", "500")
    journal = tmp_path / "runs" / "cut" / "study.journal"
    deadline = time.monotonic() + 200
    while not (journal.is_file() and b"epoch:1" in journal.read_bytes()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    ours = descendants(process.pid)
    assert len(ours) > 3
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    page = (tmp_path / "runs" / "cut" / "report" / "report.md").read_text()
    assert "The search ended before its last trial: interrupted." in page
    states = {one.state for one in load_studies(tmp_path / "runs" / "cut")["one"].get_trials()}
    assert TrialState.RUNNING not in states
    assert "report: " in out
    while any(Path(f"/proc/{pid}").exists() for pid in ours):
        assert time.monotonic() < deadline
        time.sleep(0.2)
