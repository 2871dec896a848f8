"""Stopping rules in whole numbers, against tables made by hand."""

import itertools
from collections import Counter
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.rungs import SCHEDULERS, Asha, Hyperband, MedianRule, NoStopping, StoppingRule, make_rule, rung_epochs


@pytest.mark.parametrize(
    ("max_epochs", "rungs"),
    [
        (1, ()),
        (2, (1,)),
        (3, (1,)),
        (4, (1, 3)),
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


# Values at the first rung in the order in which trials reach it, and who goes on: of 1 to 10 trials the best
# 1, 1, 1, 2, 2, 2, 3, 3, 3 and 4, which are thirds rounded up.
TABLES = [
    # Each is worse than those before it.
    ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0], "+---------"),
    # Each is better.
    ([6.0, 5.0, 4.0, 3.0, 2.0, 1.0], "++++++"),
    # The second best of three stops, of four goes on.
    ([1.0, 9.0, 2.0], "+--"),
    ([1.0, 9.0, 9.0, 2.0], "+--+"),
    # The third best of six stops, of seven goes on.
    ([1.0, 2.0, 9.0, 9.0, 9.0, 3.0], "+-----"),
    ([1.0, 2.0, 9.0, 9.0, 9.0, 9.0, 3.0], "+-----+"),
    # The fourth best of nine stops, of ten goes on.
    ([1.0, 2.0, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0, 4.0], "+--------"),
    ([1.0, 2.0, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 4.0], "+--------+"),
    # Of equals the earlier ranks higher.
    ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "+-----"),
]


def decisions(rule: StoppingRule, values: list[float], *, epoch: int = 1) -> str:
    return "".join("+" if rule.goes_on(number, epoch, value) else "-" for number, value in enumerate(values))


@pytest.mark.parametrize("direction", ["min", "max"])
@pytest.mark.parametrize(("values", "expected"), TABLES)
def test_asha_goes_by_the_table(direction: Any, values: list[float], expected: str) -> None:
    sign = 1.0 if direction == "min" else -1.0
    asha = Asha(rung_epochs(9), direction)
    assert decisions(asha, [sign * value for value in values]) == expected


def test_asha_compares_at_rungs_only_and_each_rung_by_itself() -> None:
    asha = Asha(rung_epochs(27), "min")
    assert asha.goes_on(0, 1, 1.0)
    assert asha.goes_on(0, 2, 100.0)
    assert asha.goes_on(0, 3, 5.0)
    assert asha.goes_on(1, 1, 0.5)
    assert asha.goes_on(1, 2, 100.0)
    assert not asha.goes_on(1, 3, 5.5)
    assert asha.goes_on(0, 9, 100.0)
    assert asha.goes_on(0, 27, 1000.0)


@given(st.lists(st.floats(0, 10), max_size=30), st.randoms(use_true_random=False), st.floats(0, 10))
def test_a_rungs_state_does_not_depend_on_the_order_of_reports(values: list[float], random: Any, last: float) -> None:
    shuffled = list(enumerate(values))
    random.shuffle(shuffled)
    for name in ("asha", "hyperband", "median"):
        rules = [make_rule(name, max_epochs=9, direction="min", seed=4) for _ in range(2)]
        for rule, order in zip(rules, (list(enumerate(values)), shuffled), strict=True):
            for number, value in order:
                rule.goes_on(number, 1, value)
        assert rules[0].goes_on(99, 1, last) == rules[1].goes_on(99, 1, last)


def test_hyperbands_brackets_begin_at_each_rung_in_the_papers_proportions() -> None:
    # Algorithm 1 of Li et al. 2018 for R = 27, eta = 3: n = ceil((s_max + 1) / (s + 1) * eta ** s) for s = 3, 2, 1.
    expected = {first: ceil(Fraction(4, s + 1) * 3**s) for first, s in ((1, 3), (3, 2), (9, 1))}
    assert expected == {1: 27, 3: 12, 9: 6}
    rule, found = Hyperband(27, "min", seed=0), Counter[int]()
    for other in range(200):
        for place in (1, 3, 9):
            rule.goes_on(other, place, 0.0)
    num = 3000
    for number in range(200, 200 + num):
        found[next(place for place in (1, 3, 9) if not rule.goes_on(number, place, 1.0))] += 1
    for first, share in expected.items():
        mean = num * share / 45
        # Three standard deviations of a binomial count.
        assert abs(found[first] - mean) < 3 * (mean * (1 - share / 45)) ** 0.5


def test_a_trials_bracket_follows_from_its_number_alone() -> None:
    def choices(seed: int, order: range) -> dict[int, bool]:
        rule = Hyperband(27, "min", seed=seed)
        for other in range(1000, 1200):
            rule.goes_on(other, 1, 0.0)
        return {number: rule.goes_on(number, 1, 1.0) for number in order}

    assert choices(0, range(40)) == choices(0, range(39, -1, -1))
    assert choices(0, range(40)) != choices(1, range(40))


def test_hyperband_of_one_epoch_stops_nobody() -> None:
    assert decisions(make_rule("hyperband", max_epochs=1, direction="min", seed=0), [1.0, 2.0, 3.0]) == "+++"


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_median_rule_compares_the_best_so_far_with_the_median_of_running_means(direction: Any) -> None:
    sign = 1.0 if direction == "min" else -1.0
    rule = MedianRule(direction)
    # Five trials pass unjudged; their running means after the second epoch are 1.5, 2.5, 3.5, 4.5, 5.5.
    for number in range(5):
        assert rule.goes_on(number, 1, sign * (number + 1))
        assert rule.goes_on(number, 2, sign * (number + 2))
    # The median after the first epoch is 3; one that equals it is not worse.
    assert rule.goes_on(5, 1, sign * 3.0)
    assert not rule.goes_on(6, 1, sign * 3.1)
    # Its best is 3, its latest far worse: the median of the means after the second epoch is 3.5.
    assert rule.goes_on(5, 2, sign * 100.0)
    assert rule.goes_on(7, 2, sign * 3.5)
    assert not rule.goes_on(8, 2, sign * 50.0)


def test_no_stopping_stops_nobody() -> None:
    assert decisions(make_rule("none", max_epochs=9, direction="min", seed=0), [1.0, 2.0, 3.0, 100.0]) == "++++"


def test_every_scheduler_has_its_rule() -> None:
    kinds = [type(make_rule(name, max_epochs=9, direction="min", seed=0)) for name in SCHEDULERS]
    # Population based training decides by generations.
    assert kinds == [Asha, Hyperband, MedianRule, NoStopping, NoStopping]
