"""What Tune tells the recorder ends up in the studies, and the search ends when it must."""

import errno
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from two_spaces import epoch, make_ledger

from galaxy_models.errors import GalaxyError, MachineError
from search.recorder import MAX_FAULTS_IN_A_ROW, Recorder
from search.stopper import SearchStopper
from search.study import load_studies
from search.trial import weights_path


def begin(recorder: Recorder, key: str, *, values: tuple[float, ...] = (), space: str = "a") -> Any:
    """Start a trial and let it report its epochs, each of which writes weights first."""
    entry = recorder._ledger.start(key, space)
    trial = SimpleNamespace(trial_id=key, last_result={})
    for number, value in enumerate(values, 1):
        path = weights_path(recorder._run_dir, space, entry.number, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
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


def kept(recorder: Recorder, space: str = "a") -> set[tuple[int, int]]:
    """Trial and epoch of every weights file."""
    folder = weights_path(recorder._run_dir, space, 0, 0).parent
    names = [path.stem.split("-") for path in folder.iterdir()]
    return {(int(number), int(epoch)) for _, number, _, epoch in names}


def test_only_metrics_are_written(recorder: Recorder, tmp_path: Path) -> None:
    end(recorder, begin(recorder, "0", values=(0.5,)))
    (trial,) = [one for one in load_studies(tmp_path)["a"].get_trials() if one.state.is_finished()]
    assert trial.user_attrs["epoch:1"] == {**epoch(1, 0.5), "handover_s": 0.1}
    assert recorder.handovers_s == [0.1]


def test_weights_are_kept_of_the_best_ended_trial_and_of_running_ones(recorder: Recorder) -> None:
    good = begin(recorder, "0", values=(0.6, 0.3))
    bad = begin(recorder, "1", values=(0.9,))
    running = begin(recorder, "2", values=(0.1,))
    end(recorder, bad)
    end(recorder, good)
    assert kept(recorder) == {(0, 2), (2, 1)}
    end(recorder, running, diverged=1.0)
    assert kept(recorder) == {(0, 2)}
    better = begin(recorder, "3", values=(0.2,))
    end(recorder, better)
    assert kept(recorder) == {(3, 1)}


def test_an_epoch_that_was_written_but_never_reported_is_not_taken_for_the_best(recorder: Recorder) -> None:
    begin(recorder, "0", values=(0.5, 0.3))
    folder = weights_path(recorder._run_dir, "a", 0, 0).parent
    (folder / "trial-00000-epoch-0003.safetensors").write_bytes(b"newer")
    (folder / ".trial-00000-epoch-0004.safetensors.77").write_bytes(b"half")
    recorder._sweep("a")
    assert len(list(folder.iterdir())) == 3
    recorder.close("time budget")
    assert [path.name for path in folder.iterdir()] == ["trial-00000-epoch-0002.safetensors"]


def test_a_search_that_is_cut_short_keeps_its_best(recorder: Recorder, tmp_path: Path) -> None:
    begin(recorder, "0", values=(0.3,))
    begin(recorder, "1", values=(0.9,))
    recorder.close("time budget")
    assert kept(recorder) == {(0, 1)}
    trials = load_studies(tmp_path)["a"].get_trials()
    assert [one.user_attrs["reason"] for one in trials[:2]] == ["time budget"] * 2


def test_a_full_disk_is_the_searchs_fault_and_not_a_bug(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = begin(recorder, "0")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "study.journal")

    monkeypatch.setattr(recorder._ledger, "record", full)
    recorder.on_trial_result(0, [], trial, {**epoch(1, 0.5), "diverged": 0.0})
    assert isinstance(recorder.fault, MachineError)
    assert recorder.fault.exit_code == 1
    assert (
        str(recorder.fault)
        == "study.journal: No space left on device: free some room or choose another place, then run again"
    )


def test_a_fault_that_the_user_can_mend_ends_the_search_at_once(recorder: Recorder) -> None:
    end(recorder, begin(recorder, "0"), fault="shard train-00000.arrow: altered", fault_exit_code=2)
    assert isinstance(recorder.fault, GalaxyError)
    assert str(recorder.fault) == "a, trial 0: shard train-00000.arrow: altered"
    assert recorder.fault.exit_code == 2


def test_a_space_whose_trials_keep_failing_is_given_up_and_the_others_go_on(recorder: Recorder) -> None:
    for number in range(MAX_FAULTS_IN_A_ROW - 1):
        end(recorder, begin(recorder, f"a{number}"), fault="RuntimeError: boom")
    end(recorder, begin(recorder, "good", values=(0.5,)))
    end(recorder, begin(recorder, "again"), fault="RuntimeError: boom")
    # Another space's faults are its own.
    end(recorder, begin(recorder, "other", space="b"), fault="RuntimeError: boom")
    end(recorder, begin(recorder, "dead"), fault="RuntimeError: boom")
    assert not recorder._ledger.given_up
    recorder.on_trial_error(0, [], begin(recorder, "last"))
    assert list(recorder._ledger.given_up) == ["a"]
    assert "the worker process died" in recorder._ledger.given_up["a"]
    assert recorder.fault is None
    assert recorder._ledger.next_space() == "b"


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
    faults.append(ValueError("boom"))
    assert stopper.stop_all()
    assert stopper.reason == "an error: boom"
    received.append(15)
    assert stopper.stop_all()
    assert stopper.reason == "interrupted"
    assert not stopper("any", {})
