"""A search whose trials train in two processes each: a process and the driver are killed, and it goes on."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from blobs import SPACE, run, start
from optuna.trial import TrialState

from search.journal import JOURNAL
from search.results import load_results
from search.study import load_studies


def processes_of(pid: int, mark: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if mark in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


@pytest.mark.slow  # as its two searches start eight processes with torch
@pytest.mark.timeout(280)
def test_a_search_in_two_processes_a_trial_outlives_their_deaths(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(SPACE)
    words = ("--space", "one.py", "--data", str(survey), "--num-trials", "6", "--max-epochs", "9", "--final-seeds", "1")
    process = start(tmp_path, *words, "--name", "two", "--processes-per-trial", "2")
    journal = tmp_path / "runs" / "two" / JOURNAL

    def num_epochs() -> int:
        return journal.read_bytes().count(b'"epoch:') if journal.exists() else 0

    wait_for(lambda: num_epochs() >= 3, 120)
    (peer,) = processes_of(process.pid, "ray::Peer")
    peer.kill()
    before = num_epochs()
    # One dead process ends no more than the trial's own: the next epoch comes from others, long before any timeout.
    wait_for(lambda: num_epochs() > before + 1, 60)
    # In the search, or in the final training already.
    left = [one for one in processes_of(process.pid, "ray::") if "Agent" not in one.name()]
    assert len(left) >= 2
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in left), 30)

    code, out, err = run(tmp_path, "--resume", "runs/two")
    assert code == 0, err
    assert "1 trial at a time, each on 2 CPU in 2 processes" in out
    trials = load_studies(tmp_path / "runs" / "two")["one"].get_trials()
    states = Counter(one.state for one in trials)
    assert states[TrialState.FAIL] == 1
    assert "diverged in epoch 1" in trials[5].user_attrs["reason"]
    assert states[TrialState.PRUNED] >= 1
    # ASHA compares after epochs 1 and 3; the others came to their last.
    assert {max(one.intermediate_values) for one in trials if one.state == TrialState.PRUNED} <= {1, 3}
    assert all(
        list(one.intermediate_values) == list(range(1, 10)) for one in trials if one.state == TrialState.COMPLETE
    )
    (final,) = load_results(tmp_path / "runs" / "two")
    assert (final.failure, final.epochs) == ("", 9)
    assert final.metrics["test"]["accuracy"] > 0.9
