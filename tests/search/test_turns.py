"""Who gets the next trial, and who leaves a race."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.turns import Standing, fewest, losers, race_quotas, race_round


def standing(name: str, *, started: int = 0, epochs: int = 0, best: float = math.nan) -> Standing:
    return Standing(name, started, epochs, best)


def test_the_fewest_trials_first_then_the_fewest_epochs_then_the_first_named() -> None:
    quotas = dict.fromkeys("abc", 5)
    two, one = standing("a", started=2, epochs=2), standing("b", started=1, epochs=90)
    assert fewest([two, one], quotas) == "b"
    assert fewest([standing("a", started=1, epochs=9), standing("b", started=1, epochs=3)], quotas) == "b"
    assert fewest([standing("c"), standing("a"), standing("b")], quotas) == "c"
    assert fewest([two, standing("b", started=5)], {"a": 2, "b": 5}) is None
    assert fewest([two, standing("b", started=4)], {"a": 2, "b": 5}) == "b"


@pytest.mark.parametrize(
    ("num_spaces", "total", "quotas"),
    [
        # 4 spaces, 96 trials: 8 each, then 16 more for two, then 32 more for one: 32 a round.
        (4, 96, [8, 24, 56]),
        (2, 40, [10, 30]),
        # Fields of 5, 3, 2, 1 at 25 trials a round.
        (5, 100, [5, 13, 25, 50]),
        (1, 20, [20]),
        # Never fewer than one trial a round.
        (4, 4, [1, 2, 3]),
    ],
)
def test_quotas_of_a_race(num_spaces: int, total: int, quotas: list[int]) -> None:
    assert race_quotas(num_spaces, total) == quotas


@given(st.integers(1, 40), st.integers(1, 5000))
def test_a_race_costs_no_more_than_its_trials_but_for_the_least_of_each_round(num_spaces: int, total: int) -> None:
    quotas, field, spent, before = race_quotas(num_spaces, total), num_spaces, 0, 0
    for quota in quotas:
        assert quota > before
        # A round takes its share of the trials, or one trial of each space that is left.
        assert field * (quota - before) <= max(total / len(quotas), field)
        spent += field * (quota - before)
        field, before = math.ceil(field / 2), quota
    assert field == 1
    assert spent <= total or total < num_spaces * len(quotas)


@pytest.mark.parametrize(
    ("num_spaces", "rounds"), [(5, {5: 0, 4: 1, 3: 1, 2: 2, 1: 3}), (4, {4: 0, 2: 1, 1: 2}), (1, {1: 0, 0: 0})]
)
def test_the_round_follows_from_how_many_are_left(num_spaces: int, rounds: dict[int, int]) -> None:
    assert {left: race_round(num_spaces, left) for left in rounds} == rounds


def test_the_worse_half_leaves_and_those_without_a_value_first() -> None:
    field = [standing("a", best=0.5), standing("b"), standing("c", best=0.2), standing("d", best=0.9)]
    assert sorted(losers(field, "min")) == ["b", "d"]
    assert sorted(losers(field, "max")) == ["b", "c"]
    # Of five the best three stay; of equals the earlier.
    equal = [standing(name, best=0.5) for name in "abcde"]
    assert losers(equal, "min") == ["d", "e"]
    assert losers([standing("a"), standing("b")], "max") == ["b"]
