"""Rungs in whole numbers, and ASHA for each backbone alone."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler

from search.scheduler import BackboneAsha, rung_epochs


@pytest.mark.parametrize(
    ("max_epochs", "rungs"),
    [
        (1, ()),
        (2, (1,)),
        (3, (1,)),
        (9, (1, 3)),
        (27, (1, 3, 9)),
        (30, (1, 3, 9, 27)),
        (81, (1, 3, 9, 27)),
        # log(243) / log(3) is 4.999... in floating point.
        (243, (1, 3, 9, 27, 81)),
        (729, (1, 3, 9, 27, 81, 243)),
    ],
)
def test_rungs(max_epochs: int, rungs: tuple[int, ...]) -> None:
    assert rung_epochs(max_epochs) == rungs


@given(st.integers(2, 10**9))
def test_rungs_are_every_power_of_three_below_the_end(max_epochs: int) -> None:
    rungs = rung_epochs(max_epochs)
    assert rungs[0] == 1
    assert all(later == 3 * earlier for earlier, later in itertools.pairwise(rungs))
    assert rungs[-1] < max_epochs <= 3 * rungs[-1]


def trial(space: str, number: int) -> Any:
    return SimpleNamespace(trial_id=f"{space}{number}", config={"space": space})


def feed(asha: BackboneAsha, one: Any, epoch: int, value: float) -> str:
    return asha.on_trial_result(None, one, {"epoch": epoch, "objective": value})


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_worse_are_stopped_at_the_rung_and_only_there(direction: Any) -> None:
    sign = 1.0 if direction == "min" else -1.0
    asha = BackboneAsha(9, direction)
    trials = [trial("cnn", number) for number in range(6)]
    for one in trials:
        asha.on_trial_add(None, one)
    # Each is worse than those before: the first goes on, and with a third going on so does nobody after it.
    decisions = [feed(asha, one, 1, sign * number) for number, one in enumerate(trials)]
    assert decisions == [TrialScheduler.CONTINUE] + [TrialScheduler.STOP] * 5
    assert feed(asha, trials[0], 2, sign * 100) == TrialScheduler.CONTINUE
    assert feed(asha, trials[0], 3, sign * 100) == TrialScheduler.CONTINUE
    assert feed(asha, trials[0], 9, sign * 100) == TrialScheduler.STOP


def test_backbones_do_not_compete() -> None:
    asha = BackboneAsha(9, "min")
    good, bad = trial("cnn", 0), trial("vgg16", 0)
    for one in (good, bad):
        asha.on_trial_add(None, one)
    assert feed(asha, good, 1, 0.1) == TrialScheduler.CONTINUE
    assert feed(asha, bad, 1, 5.0) == TrialScheduler.CONTINUE


def test_a_diverged_trial_leaves_no_mark_on_the_rungs() -> None:
    asha = BackboneAsha(9, "min")
    diverged, later, last = (trial("cnn", number) for number in range(3))
    for one in (diverged, later, last):
        asha.on_trial_add(None, one)
    asha.on_trial_complete(None, diverged, {"epoch": 1, "objective": math.nan})
    assert feed(asha, later, 1, 3.0) == TrialScheduler.CONTINUE
    assert feed(asha, last, 1, 4.0) == TrialScheduler.STOP


def test_a_value_that_is_not_finite_enters_no_rung_and_stops_nobody() -> None:
    asha = BackboneAsha(9, "max")
    first, second, third = (trial("cnn", number) for number in range(3))
    for one in (first, second, third):
        asha.on_trial_add(None, one)
    assert feed(asha, first, 1, math.nan) == TrialScheduler.CONTINUE
    assert feed(asha, second, 1, 0.5) == TrialScheduler.CONTINUE
    assert feed(asha, third, 1, 0.4) == TrialScheduler.STOP
    assert feed(asha, first, 3, 0.9) == TrialScheduler.CONTINUE
