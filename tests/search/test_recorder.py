"""What Tune tells the recorder ends up in the studies, and the search ends when it must."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from two_spaces import epoch, make_ledger

from galaxy_models.errors import GalaxyError
from search.errors import SearchFault
from search.recorder import MAX_FAULTS_IN_A_ROW, Recorder
from search.stopper import SearchStopper
from search.study import load_studies
from search.trial import weights_path


def begin(recorder: Recorder, key: str, *, values: tuple[float, ...] = (), space: str = "a") -> Any:
    """Start a trial, with weights on disk, and let it report its epochs."""
    entry = recorder._ledger.start(key, space)
    path = weights_path(recorder._run_dir, space, entry.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    trial = SimpleNamespace(trial_id=key, last_result={})
    for number, value in enumerate(values, 1):
        result = {**epoch(number, value), "diverged": 0.0, "handover_s": 0.1, "pid": 7, "config": {}}
        recorder.on_trial_result(0, [], trial, result)
        trial.last_result = result
    return trial


def end(recorder: Recorder, trial: Any, **last: Any) -> None:
    result = {"objective": math.nan, "epoch": 1, **last} if last else trial.last_result
    if last:
        recorder.on_trial_result(0, [], trial, result)
    trial.last_result = result
    recorder.on_trial_complete(0, [], trial)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(make_ledger(tmp_path, num_trials=50), tmp_path)


def kept(recorder: Recorder, space: str = "a") -> set[int]:
    folder = weights_path(recorder._run_dir, space, 0).parent
    return {int(path.stem.removeprefix("trial-")) for path in folder.iterdir()}


def test_only_metrics_are_written(recorder: Recorder, tmp_path: Path) -> None:
    end(recorder, begin(recorder, "0", values=(0.5,)))
    (trial,) = [one for one in load_studies(tmp_path)["a"].get_trials() if one.state.is_finished()]
    assert trial.user_attrs["epoch:1"] == {**epoch(1, 0.5), "handover_s": 0.1}
    assert recorder.handovers_s == [0.1]


def test_weights_are_kept_of_the_best_ended_trial_and_of_running_ones(recorder: Recorder) -> None:
    good = begin(recorder, "0", values=(0.3,))
    bad = begin(recorder, "1", values=(0.9,))
    running = begin(recorder, "2", values=(0.1,))
    end(recorder, bad)
    end(recorder, good)
    assert kept(recorder) == {0, 2}
    end(recorder, running, diverged=1.0)
    assert kept(recorder) == {0}
    better = begin(recorder, "3", values=(0.2,))
    end(recorder, better)
    assert kept(recorder) == {3}


def test_a_search_that_is_cut_short_keeps_its_best(recorder: Recorder, tmp_path: Path) -> None:
    begin(recorder, "0", values=(0.3,))
    begin(recorder, "1", values=(0.9,))
    recorder.close("time budget")
    assert kept(recorder) == {0}
    trials = load_studies(tmp_path)["a"].get_trials()
    assert [one.user_attrs["reason"] for one in trials[:2]] == ["time budget"] * 2


def test_a_fault_that_the_user_can_mend_ends_the_search_at_once(recorder: Recorder) -> None:
    end(recorder, begin(recorder, "0"), fault="shard train-00000.arrow: altered", fault_exit_code=2)
    assert isinstance(recorder.fault, GalaxyError)
    assert str(recorder.fault) == "a, trial 0: shard train-00000.arrow: altered"
    assert recorder.fault.exit_code == 2


def test_faults_in_a_row_end_the_search_and_one_between_good_epochs_does_not(recorder: Recorder) -> None:
    for number in range(MAX_FAULTS_IN_A_ROW - 1):
        end(recorder, begin(recorder, f"a{number}"), fault="RuntimeError: boom")
    end(recorder, begin(recorder, "good", values=(0.5,)))
    end(recorder, begin(recorder, "again"), fault="RuntimeError: boom")
    assert recorder.fault is None
    # Another space's faults are its own.
    end(recorder, begin(recorder, "other", space="b"), fault="RuntimeError: boom")
    end(recorder, begin(recorder, "dead"), fault="RuntimeError: boom")
    assert recorder.fault is None
    recorder.on_trial_error(0, [], begin(recorder, "last"))
    assert isinstance(recorder.fault, SearchFault)
    assert "the worker process died" in str(recorder.fault)


def test_the_stopper_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[Exception] = []
    received: list[int] = []
    now = [100.0]
    monkeypatch.setattr("search.stopper.time.monotonic", lambda: now[0])
    stopper = SearchStopper(budget_s=10.0, received=received, fault=lambda: faults[0] if faults else None)
    assert not stopper.stop_all()
    now[0] = 110.0
    assert stopper.stop_all()
    assert stopper.reason == "time budget"
    faults.append(ValueError())
    assert stopper.stop_all()
    assert stopper.reason == "an error elsewhere"
    received.append(15)
    assert stopper.stop_all()
    assert stopper.reason == "interrupted"
    assert not stopper("any", {})
