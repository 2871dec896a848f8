"""The studies hold what happened, and nothing else does."""

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from two_spaces import epoch, make_ledger

from search.errors import SpaceError
from search.space import load_space
from search.study import load_studies


def test_spaces_take_turns_until_each_has_its_trials(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    order = []
    while (space := ledger.next_space()) is not None:
        order.append(space)
        ledger.start(str(len(order)), space)
    assert order == ["a", "b"] * 3


def test_the_named_configuration_is_first_and_the_rest_is_set_by_the_run(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    first, second = ledger.start("0", "a"), ledger.start("1", "a")
    assert first.config["learning_rate"] == 1e-3
    assert (first.config["epochs"], first.config["precision"]) == (9, "float32")
    assert first.config["seed"] != second.config["seed"]
    assert first.trial.study.get_trials()[0].user_attrs["named"] is True


def test_every_end_is_written_to_the_journal_as_what_it_is(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    for key in "csfr":
        ledger.num_trials = 4
        ledger.start(key, "a")
    for number, value in enumerate((0.9, 0.4, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5), 1):
        ledger.record("c", epoch(number, value))
    ledger.record("s", epoch(1, 0.8))
    ledger.finished("c")
    ledger.finished("s")
    ledger.finish("f", "failed", "diverged in epoch 1")
    complete, stopped, failed, running = load_studies(tmp_path)["a"].get_trials()
    assert (complete.state, complete.value, complete.user_attrs["best_epoch"]) == (TrialState.COMPLETE, 0.4, 2)
    assert complete.user_attrs["seconds"] == 18.0
    assert complete.user_attrs["epoch:2"] == epoch(2, 0.4)
    assert list(complete.intermediate_values) == list(range(1, 10))
    assert (stopped.state, stopped.intermediate_values) == (TrialState.PRUNED, {1: 0.8})
    assert "after epoch 1" in stopped.user_attrs["reason"]
    assert (failed.state, failed.user_attrs["reason"]) == (TrialState.FAIL, "diverged in epoch 1")
    assert running.state == TrialState.RUNNING


@pytest.mark.parametrize("direction", ["min", "max"])
def test_best_of_ended_trials_that_did_not_fail(tmp_path: Path, direction: Any) -> None:
    sign = 1.0 if direction == "min" else -1.0
    ledger = make_ledger(tmp_path, direction=direction)
    for key, value in (("0", 0.5), ("1", 0.1), ("2", 0.3)):
        ledger.start(key, "a")
        ledger.record(key, epoch(1, sign * value))
    assert math.isnan(ledger.value_to_beat("a"))
    leader = ledger.leader("a")
    assert leader is not None
    assert leader.number == 1
    ledger.finished("0")
    ledger.finish("1", "failed", "diverged")
    ledger.finished("2")
    assert ledger.best["a"].number == 2
    assert ledger.value_to_beat("a") == sign * 0.3
    assert "b" not in ledger.best
    assert ledger.leader("b") is None


def test_closing_twice_changes_nothing(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    ledger.start("0", "a")
    ledger.record("0", epoch(1, 0.5))
    ledger.finish("0", "stopped", "time budget")
    ledger.finish("0", "failed", "later")
    assert load_studies(tmp_path)["a"].get_trials()[0].user_attrs["reason"] == "time budget"


def test_a_space_that_fails_in_mid_search_is_recorded_and_raised(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    (tmp_path / "bad.py").write_text("def space(trial):\n    return 1 / 0\n")
    ledger.spaces = {**ledger.spaces, "a": load_space(tmp_path / "bad.py")}
    with pytest.raises(SpaceError, match="ZeroDivisionError"):
        ledger.start("0", "a")
    (trial,) = [one for one in ledger.studies["a"].get_trials() if one.state == TrialState.FAIL]
    assert "ZeroDivisionError" in trial.user_attrs["reason"]


def test_same_seed_same_suggestions_and_other_spaces_draw_others(tmp_path: Path) -> None:
    def draws(folder: str, space: str) -> list[float]:
        (tmp_path / folder).mkdir()
        ledger = make_ledger(tmp_path / folder, num_trials=30)
        values = []
        for number in range(15):
            entry = ledger.start(str(number), space)
            values.append(entry.trial.params["lr"])
            ledger.record(str(number), epoch(1, abs(math.log(entry.trial.params["lr"]) + 5)))
            ledger.finished(str(number))
        return values

    first = draws("1", "a")
    assert draws("2", "a") == first
    assert draws("3", "b")[1:] != first[1:]


def test_fixed_parameters_stay_fixed(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, num_trials=5, lr=0.02)
    assert {ledger.start(str(n), "a").trial.params["lr"] for n in range(5)} == {0.02}
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING


def test_a_trial_without_a_finite_value_has_failed(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    ledger.start("0", "a")
    for number in range(1, 10):
        ledger.record("0", epoch(number, math.nan))
    ledger.finished("0")
    (trial,) = [one for one in load_studies(tmp_path)["a"].get_trials() if one.state.is_finished()]
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["reason"] == "val_nll was never a finite number"


def test_a_space_that_is_given_up_gets_no_more_turns(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    ledger.given_up["a"] = "it failed"
    assert ledger.next_space() == "b"
    ledger.given_up["b"] = "it failed too"
    assert ledger.next_space() is None
