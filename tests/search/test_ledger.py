"""The studies hold what happened, and nothing else does."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from two_spaces import epoch, make_account, make_ledger, write_space

from search.errors import SpaceError
from search.ledger import Ledger
from search.study import load_studies


def run_to_end(ledger: Ledger, key: str, *, value: float = 0.5) -> None:
    """Let a trial report until it is closed."""
    while ledger.report(key, epoch(ledger.live[key].epochs + 1, value)):
        pass


def test_spaces_take_turns_until_each_has_its_trials(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    order = []
    while (entry := ledger.start(str(len(order)))) is not None:
        order.append(entry.space)
    assert order == ["a", "b"] * 3
    assert not ledger.finished  # they run
    for key in list(ledger.live):
        ledger.finish(key, "failed", "planted")
    assert ledger.start("more") is None
    assert ledger.finished


def test_the_space_with_fewer_epochs_comes_first_among_equals(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    ledger.start("a0")
    ledger.start("b0")
    ledger.report("a0", epoch(1, 0.5))
    following = [ledger.start("x"), ledger.start("y")]
    assert [entry.space for entry in following if entry] == ["b", "a"]


def test_the_named_configuration_is_first_and_the_rest_is_set_by_the_run(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    first, second = ledger.start("0"), ledger.start("1")
    assert first is not None
    assert second is not None
    assert first.params == {"lr": 1e-3, "beta": 0.9}
    assert first.config["learning_rate"] == 1e-3
    assert (first.config["epochs"], first.config["precision"]) == (9, "float32")
    assert first.config["seed"] != second.config["seed"]
    assert load_studies(tmp_path)["a"].get_trials()[0].user_attrs["named"] is True


def test_every_end_is_written_to_the_journal_as_what_it_is(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", num_trials=4)
    for key in "csfr":
        ledger.start(key)
    for number, value in enumerate((0.9, 0.4, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5), 1):
        assert ledger.report("c", epoch(number, value)) is (number < 9)
    assert not ledger.report("s", epoch(1, 1.8))
    ledger.finish("f", "failed", "diverged in epoch 1")
    complete, stopped, failed, running = load_studies(tmp_path)["a"].get_trials()
    assert (complete.state, complete.value, complete.user_attrs["best_epoch"]) == (TrialState.COMPLETE, 0.4, 2)
    assert complete.user_attrs["seconds"] == 18.0
    assert complete.user_attrs["epoch:2"] == {**epoch(2, 0.4), "elapsed_s": 0.0}
    assert list(complete.intermediate_values) == list(range(1, 10))
    assert (stopped.state, stopped.intermediate_values) == (TrialState.PRUNED, {1: 1.8})
    assert stopped.user_attrs["reason"] == "stopped by asha after epoch 1"
    assert (failed.state, failed.user_attrs["reason"]) == (TrialState.FAIL, "diverged in epoch 1")
    assert running.state == TrialState.RUNNING
    assert list(ledger.live) == ["r"]


@pytest.mark.parametrize("direction", ["min", "max"])
def test_best_of_ended_trials_that_did_not_fail(tmp_path: Path, direction: Any) -> None:
    sign = 1.0 if direction == "min" else -1.0
    ledger = make_ledger(tmp_path, names="a", direction=direction, scheduler="none", max_epochs=2)
    account = ledger.accounts["a"]
    for key, value in (("0", 0.5), ("1", 0.1), ("2", 0.3)):
        ledger.start(key)
        ledger.report(key, epoch(1, sign * value))
    assert math.isnan(account.value_to_beat())
    assert account.leader is not None
    assert account.leader.number == 1
    ledger.report("0", epoch(2, sign * 0.9))
    ledger.finish("1", "failed", "diverged")
    ledger.report("2", epoch(2, sign * 0.9))
    assert ledger.accounts["a"].ranking[0].number == 2
    assert [account.value_to_beat(place) for place in (1, 2)] == [sign * 0.3, sign * 0.5]
    assert math.isnan(account.value_to_beat(3))


def test_closing_twice_changes_nothing(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    ledger.start("0")
    ledger.report("0", epoch(1, 0.5))
    ledger.finish("0", "failed", "first")
    size = (tmp_path / "study.journal").stat().st_size
    ledger.finish("0", "complete", "later")
    assert (tmp_path / "study.journal").stat().st_size == size
    assert load_studies(tmp_path)["a"].get_trials()[0].user_attrs["reason"] == "first"


def test_an_epoch_that_is_told_again_counts_once(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    ledger.start("0")
    ledger.report("0", epoch(1, 0.5))
    ledger.report("0", epoch(2, 0.4))
    assert ledger.report("0", epoch(1, 99.0))
    assert ledger.report("0", epoch(2, 99.0))
    assert ledger.spent_epochs == 2
    assert load_studies(tmp_path)["a"].get_trials()[0].intermediate_values == {1: 0.5, 2: 0.4}


def test_a_space_that_fails_in_mid_search_is_recorded_and_raised(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    account = ledger.accounts["a"]
    proposals = account._proposals
    proposals.space = replace(proposals.space, suggest=lambda trial: 1 / 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(SpaceError, match=r"a\.py: ZeroDivisionError: division by zero: mend space\(\)"):
        ledger.start("0")
    (trial,) = account.study.get_trials()
    assert trial.state == TrialState.FAIL
    assert "ZeroDivisionError" in trial.user_attrs["reason"]


def test_other_spaces_draw_others(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    drawn: dict[str, list[Any]] = {"a": [], "b": []}
    for number in range(6):
        entry = ledger.start(str(number))
        assert entry is not None
        drawn[entry.space].append(entry.params)
    assert drawn["a"][0] == drawn["b"][0]
    assert drawn["a"][1] != drawn["b"][1]


def test_fixed_parameters_stay_fixed(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    account = make_account(storage, write_space(tmp_path, "a"), lr=0.02)
    ledger = Ledger({"a": account}, make_ledger(tmp_path, names="b", num_trials=14).limits)
    for number in range(14):
        entry = ledger.start(str(number))
        assert entry is not None
        assert entry.params["lr"] == 0.02
        run_to_end(ledger, str(number), value=entry.params["beta"])


def test_a_trial_without_a_finite_value_has_failed(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    ledger.start("0")
    run_to_end(ledger, "0", value=math.nan)
    (trial,) = load_studies(tmp_path)["a"].get_trials()
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["reason"] == "val_nll was never a finite number"
    assert len([name for name in trial.user_attrs if name.startswith("epoch:")]) == 9


def test_a_value_that_is_not_finite_enters_no_rung_and_stops_nobody(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    for key in "012":
        ledger.start(key)
    assert ledger.report("0", epoch(1, math.nan))
    assert ledger.report("1", epoch(1, 5.0))  # the first that the rung knows
    assert not ledger.report("2", epoch(1, 6.0))


def test_backbones_do_not_compete(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    ledger.start("a")
    ledger.start("b")
    assert ledger.report("a", epoch(1, 0.1))
    assert ledger.report("b", epoch(1, 5.0))


def test_a_space_that_is_given_up_gets_no_more_turns(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    ledger.given_up["a"] = "it failed"
    for number in range(3):
        entry = ledger.start(str(number))
        assert entry is not None
        assert entry.space == "b"
        run_to_end(ledger, str(number))
    assert ledger.start("3") is None
    assert ledger.finished


def test_images_in_memory_at_once_are_those_of_the_smallest_that_fitted(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", max_epochs=2)
    account = ledger.accounts["a"]
    entry = ledger.start("0")
    assert entry is not None
    size = entry.config["batch_size"]
    assert account.micro_batch(entry.config["image_px"]) is None
    ledger.report("0", epoch(1, 0.5, micro_batch=size))
    assert account.micro_batch(entry.config["image_px"]) is None
    ledger.report("0", epoch(2, 0.5, micro_batch=size // 4))
    other = ledger.start("1")
    assert other is not None
    assert account.micro_batch(other.config["image_px"]) == size // 4
    assert (
        make_ledger(tmp_path, names="a", max_epochs=2).accounts["a"].micro_batch(other.config["image_px"]) == size // 4
    )
