"""Regret and its intervals, against hand tables and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from search.simulation.regret import (
    best_so_far,
    first_reached,
    mean_interval,
    paired_interval,
    regret_at,
    student_quantile,
)


def test_the_best_so_far_and_when_it_reached_a_target() -> None:
    values = np.array([3.0, 5.0, 2.0, 4.0, 1.0])
    assert list(best_so_far(values, "min")) == [3, 3, 2, 2, 1]
    assert list(best_so_far(values, "max")) == [3, 5, 5, 5, 5]
    assert first_reached(best_so_far(values, "min"), 2.0, "min") == 2
    assert first_reached(best_so_far(values, "max"), 4.0, "max") == 1
    assert first_reached(best_so_far(values, "min"), 0.5, "min") is None


def test_regret_is_that_of_the_results_that_arrived_in_time() -> None:
    spent, best = np.array([10.0, 20.0, 30.0]), np.array([0.5, 0.3, 0.3])
    found = regret_at([5, 10, 19.9, 20, 99], spent, best, optimum=0.1, worst=0.9)
    assert found == pytest.approx([0.8, 0.4, 0.4, 0.2, 0.2])


@pytest.mark.parametrize(("freedom", "tolerance"), [(1, 1e-12), (2, 1e-12), (3, 1e-2), (9, 1e-4), (29, 1e-5)])
def test_students_quantile_is_scipys(freedom: int, tolerance: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(float(stats.t.ppf(0.975, freedom)), rel=tolerance)


def test_a_means_interval_is_scipys() -> None:
    sample = np.random.default_rng(1).normal(3.0, 2.0, 30)
    mean, half = mean_interval(sample)
    low, high = stats.t.interval(0.95, 29, loc=sample.mean(), scale=stats.sem(sample))
    assert (mean - half, mean + half) == pytest.approx((float(low), float(high)), rel=1e-4)


def test_a_pairs_interval_is_that_of_the_differences() -> None:
    mean, half = paired_interval([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    assert (mean, half) == pytest.approx((0.5, 0.0))


def test_too_few_seeds_have_no_interval() -> None:
    assert math.isnan(mean_interval([])[0])
    mean, half = mean_interval([2.0])
    assert mean == 2.0
    assert math.isnan(half)
