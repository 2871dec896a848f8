"""What ends a search or a space of it before its last trial, whichever session spent it."""

import math
from pathlib import Path
from typing import Any

import pytest
from two_spaces import FOUR, epoch, make_ledger

from search.convergence import make_test
from search.ledger import Ledger


def train(ledger: Ledger, key: str, values: list[float]) -> None:
    assert ledger.start(key) is not None
    for number, value in enumerate(values, 1):
        ledger.report(key, epoch(number, value))


def test_the_epoch_budget_counts_every_epoch_of_every_session(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, epochs=5)
    train(ledger, "0", [0.5, 0.4])
    train(ledger, "1", [0.5, math.nan])
    assert ledger.spent() == ""
    again = make_ledger(tmp_path, epochs=5)
    assert again.spent() == ""
    again.start("x")
    again.report("x", epoch(3, 0.5))
    assert again.spent() == "epoch budget: 5 of 5 epochs"
    assert make_ledger(tmp_path, epochs=5).spent() == again.spent()
    assert make_ledger(tmp_path, epochs=6).spent() == ""


def test_gpu_hours_count_the_gpus_of_each_trial(tmp_path: Path) -> None:
    options: dict[str, Any] = {"gpu_hours": 1.0, "gpus_per_trial": 0.5}
    ledger = make_ledger(tmp_path, **options)
    ledger.start("0")
    ledger.report("0", {**epoch(1, 0.5), "epoch_s": 3600.0})
    assert ledger.spent() == ""
    ledger.start("1")
    ledger.report("1", {**epoch(1, 0.5), "epoch_s": 3600.0})
    assert ledger.spent() == "GPU budget: 1.00 of 1 GPU-hours"
    assert make_ledger(tmp_path, **options).spent() == ledger.spent()
    assert make_ledger(tmp_path, **{**options, "gpu_hours": 1.5}).spent() == ""


def test_gpu_hours_of_an_earlier_session_stay_those_of_the_gpus_it_had(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, gpus_per_trial=2.0)
    ledger.start("0")
    ledger.report("0", {**epoch(1, 0.5), "epoch_s": 1800.0})
    again = make_ledger(tmp_path, gpu_hours=1.5, gpus_per_trial=0.5)
    assert again.spent() == ""
    again.start("0")
    again.report("0", {**epoch(2, 0.5), "epoch_s": 3600.0})
    assert again.spent() == "GPU budget: 1.50 of 1.5 GPU-hours"


def test_the_seconds_of_the_search_are_stamped_on_each_epoch(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    ledger.elapsed_s = lambda: 12.34567
    train(ledger, "0", [0.5])
    (trial,) = ledger.accounts["a"].study.get_trials()
    assert trial.user_attrs["epoch:1"]["elapsed_s"] == 12.346


def one_epoch_trials(ledger: Ledger, values: list[float]) -> int:
    """Run trials of one epoch until there is none to run; says how many there were."""
    for index, value in enumerate(values):
        entry = ledger.start(str(index))
        if entry is None:
            return index
        ledger.report(str(index), epoch(1, value))
    return len(values)


def test_patience_ends_a_space_after_so_many_trials_without_a_better_value(tmp_path: Path) -> None:
    options: dict[str, Any] = {"names": "a", "num_trials": 50, "patience": 3, "max_epochs": 1}
    ledger = make_ledger(tmp_path, **options)
    # The best is the fourth; an equal value is none better; the third after it is the seventh.
    assert one_epoch_trials(ledger, [0.9, 0.95, 0.92, 0.5, 0.5, 0.6, 0.7, 0.1, 0.1]) == 7
    assert ledger.finished
    assert ledger.has_enough == {"a": "a has converged: 3 trials in a row ended without a better value"}
    again = make_ledger(tmp_path, **options)
    assert again.start("x") is None
    assert again.finished
    # More patience, and it goes on.
    assert make_ledger(tmp_path, **{**options, "patience": 4}).start("x") is not None


def test_patience_is_each_spaces_own(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, num_trials=6, patience=2, max_epochs=1)
    had = {"a": 0, "b": 0}
    for number in range(30):
        entry = ledger.start(str(number))
        if entry is None:
            break
        had[entry.space] += 1
        ledger.report(str(number), epoch(1, 0.5 if entry.space == "a" else -float(number)))
    assert had == {"a": 3, "b": 6}
    assert list(ledger.has_enough) == ["a"]


def test_a_converged_space_runs_its_best_stopped_trial_in_full_before_it_ends(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", num_trials=50, patience=1)
    ledger.start("0")
    ledger.start("1")
    for number in range(1, 10):
        ledger.report("0", epoch(number, 0.5 if number > 1 else 0.1))
    ledger.report("1", epoch(1, 0.3))
    assert ledger.accounts["a"].counts == {"complete": 1, "stopped": 1}
    assert ledger.start("2") is None
    assert ledger.has_enough


def test_a_grid_ends_with_its_last_point(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", text=FOUR, sampler="grid", num_trials=50, max_epochs=1)

    class Plan:
        distributions = {"a": ledger.accounts["a"]._proposals.sampler.distributions}  # noqa: RUF012 (read only)
        fixed = {"a": {"batch": 16}}  # noqa: RUF012 (read only)

    test = make_test(False, "grid", Plan(), seed=0)  # type: ignore[arg-type]
    assert test is not None
    # Two values are left of four points.
    ledger.converged = test
    assert one_epoch_trials(ledger, [0.5] * 9) == 2
    assert ledger.has_enough == {"a": "a: all 2 points of the grid have had their trial"}


def test_only_a_grid_or_the_terminator_is_a_test() -> None:
    assert make_test(False, "tpe", None, seed=0) is None  # type: ignore[arg-type]
    assert make_test(True, "tpe", None, seed=0) is not None  # type: ignore[arg-type]


def test_the_terminator_is_asked_every_fifth_trial_from_the_twentieth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna import terminator

    asked: list[int] = []

    def judge(self: Any, study: Any) -> bool:
        asked.append(len(study.get_trials()))
        return len(asked) == 3

    monkeypatch.setattr(terminator.Terminator, "should_terminate", judge)
    ledger, said = make_ledger(tmp_path, names="a", num_trials=37, max_epochs=1), []
    test = make_test(True, "tpe", None, seed=0)  # type: ignore[arg-type]
    assert test is not None
    for number in range(37):
        ledger.start(str(number))
        ledger.report(str(number), epoch(1, 0.5))
        said.append(test(ledger.accounts["a"]))
    assert asked == [20, 25, 30, 35]
    # What it said stands until five more have ended.
    words = "a has converged, by Optuna's terminator, after 30 complete trials"
    assert said == [""] * 29 + [words] * 5 + [""] * 3
