"""Trials are compared at equal length, and what is called important is."""

import math
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from report_samples import make_findings, make_study, make_trial

from search.report.comparable import KINDS, at_equal_budget, importances, median, transfer, transfer_kind, values_at


def test_values_are_the_best_within_the_same_epochs(tmp_path: Path) -> None:
    trials = [
        make_trial([0.9, 0.5, 0.6, 0.1]),
        make_trial([0.8, 0.7], state=TrialState.PRUNED),
        make_trial([0.4, math.nan, 0.3], state=TrialState.FAIL),
        make_trial([math.nan, 0.6, 0.7]),
        make_trial([0.1, 0.1, 0.1], promoted_from=0),
    ]
    found = make_findings(tmp_path, [make_study("a", trials)])
    assert values_at(found.trials, "a", 3, found.info) == {0: 0.5, 3: 0.6}
    assert values_at(found.trials, "a", 2, found.info) == {0: 0.5, 1: 0.7, 3: 0.6}
    rising = make_findings(tmp_path, [make_study("a", trials)], objective="accuracy", direction="max")
    assert values_at(rising.trials, "a", 3, rising.info) == {0: 0.9, 3: 0.7}


def test_the_longest_length_that_enough_trials_reached_is_taken(tmp_path: Path) -> None:
    long, middle, short = (make_trial([0.5] * length, state=TrialState.PRUNED) for length in (9, 3, 1))
    found = make_findings(tmp_path, [make_study("a", [long, middle, middle, short])])
    chosen = [at_equal_budget(found, "a", wanted=wanted) for wanted in (1, 2, 3, 4, 5)]
    assert [(one.epochs, len(one.values)) for one in chosen if one] == [(9, 1), (3, 3), (3, 3), (1, 4), (1, 4)]
    assert at_equal_budget(make_findings(tmp_path, [make_study("b", [])]), "b") is None


def test_the_parameter_that_matters_comes_first(tmp_path: Path) -> None:
    space = {"matters": FloatDistribution(0, 1), "idle": FloatDistribution(0, 1), "fixed": IntDistribution(1, 9)}
    trials = []
    for number in range(40):
        matters, idle = number / 39, (7 * number % 40) / 39
        params = {"matters": matters, "idle": idle, "fixed": 3}
        value = (matters - 0.3) ** 2
        trials.append(create_trial(value=value, params=params, distributions=space, intermediate_values={1: value}))
    found = make_findings(tmp_path, [make_study("a", trials)], max_epochs=1, rungs=())
    compared = at_equal_budget(found, "a")
    assert compared is not None
    shares = importances(found, compared)
    assert list(shares) == ["matters", "idle"]
    assert shares["matters"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_a_space_that_was_changed_in_between_is_judged_by_all_that_it_allowed(tmp_path: Path) -> None:
    early = {"rate": FloatDistribution(1e-4, 1e-1, log=True), "depth": IntDistribution(1, 5, step=2)}
    late = {"rate": FloatDistribution(1e-3, 1, log=True), "depth": IntDistribution(2, 8, step=2)}
    kind = {"rate": CategoricalDistribution(("low", "high")), "depth": IntDistribution(2, 8, step=2)}
    trials = []
    for number in range(20):
        for space, params in (
            (early, {"rate": 10 ** -(4 - number / 10), "depth": 1 + 2 * (number % 3)}),
            (late, {"rate": 10 ** -(3 - number / 10), "depth": 2 + 2 * (number % 4)}),
        ):
            value = (math.log10(params["rate"]) + 2) ** 2
            trials.append(create_trial(value=value, params=params, distributions=space, intermediate_values={1: value}))
    found = make_findings(tmp_path, [make_study("a", trials)], max_epochs=1, rungs=())
    assert found.trials.spaces["a"] == {"rate": FloatDistribution(1e-4, 1, log=True), "depth": IntDistribution(1, 8)}
    compared = at_equal_budget(found, "a")
    assert compared is not None
    assert next(iter(importances(found, compared))) == "rate"
    params = {"rate": "low", "depth": 4}
    other = [create_trial(value=1.0, params=params, distributions=kind, intermediate_values={1: 1.0})] * 2
    found = make_findings(tmp_path, [make_study("a", [*trials, *other])], max_epochs=1, rungs=())
    compared = at_equal_budget(found, "a")
    assert compared is not None
    # Only the two trials of the new kind are left.
    assert len(compared.values) == 42
    assert importances(found, compared) == {}


def test_nothing_is_important_where_nothing_varied(tmp_path: Path) -> None:
    found = make_findings(tmp_path, [make_study("a", [make_trial([0.5]), make_trial([0.6])])], max_epochs=1, rungs=())
    compared = at_equal_budget(found, "a")
    assert compared is not None
    assert importances(found, compared) == {}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"weights": "none", "trainable_stages": None}, KINDS[0]),
        ({"weights": "imagenet", "trainable_stages": 0}, KINDS[1]),
        ({"weights": "imagenet", "trainable_stages": 3}, KINDS[2]),
        ({"weights": "imagenet", "trainable_stages": 5}, KINDS[3]),
        ({"weights": "imagenet", "trainable_stages": None}, KINDS[3]),
        ({"backbone": "cnn"}, KINDS[0]),
    ],
)
def test_how_much_is_trained_has_a_name(config: dict[str, object], kind: str) -> None:
    assert transfer_kind(config, 5) == kind


def test_transfer_is_compared_at_every_length_that_two_kinds_reached(tmp_path: Path) -> None:
    scratch, frozen, full = (
        {"weights": weights, "trainable_stages": stages}
        for weights, stages in (("none", None), ("imagenet", 0), ("imagenet", 5))
    )
    trials = [
        make_trial([0.9, 0.8, 0.7], config=scratch, state=TrialState.PRUNED),
        make_trial([0.6, 0.6, 0.5, 0.4], config=full),
        make_trial([0.7, 0.2, 0.3], config=full, state=TrialState.PRUNED),
        make_trial([0.5], config=frozen, state=TrialState.PRUNED),
    ]
    found = make_findings(tmp_path, [make_study("a", trials), make_study("b", trials[:1])])
    assert transfer(found, "a") == {
        1: {"from scratch": [0.9], "frozen": [0.5], "fully trained": [0.6, 0.7]},
        3: {"from scratch": [0.7], "fully trained": [0.5, 0.2]},
    }
    assert transfer(found, "b") == {}


def test_median_by_hand() -> None:
    assert (median([3.0, 1.0, 2.0]), median([4.0, 1.0, 2.0, 3.0])) == (2.0, 2.5)
