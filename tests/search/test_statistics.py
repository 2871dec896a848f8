"""Intervals cover what they say, and tests agree with their closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from search.statistics import (
    Spread,
    difference_p_value,
    holm,
    percentile_interval,
    resampled_means,
    resampled_together,
    sign_p_value,
    wilson_interval,
)

NUM_SURVEYS = 300


def test_resampled_means_scatter_as_the_standard_error() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=(400, 2))
    found = resampled_means(values, seed=7, num_resamples=4000)
    assert found.shape == (4000, 2)
    # The bootstrap of a mean scatters by s / sqrt(N), with a relative error of 1 / sqrt(2 B) = 1.1 %.
    assert found.std(axis=0) == pytest.approx(values.std(axis=0) / 20, rel=0.05)
    assert found.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=0.01)


def test_the_same_seed_pairs_two_networks_and_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = np.random.default_rng(2).random((2, 50, 1))
    both = resampled_means(np.hstack([first, second]), seed=3, num_resamples=200)
    alone = resampled_means(second, seed=3, num_resamples=200)
    assert both[:, 1:] == pytest.approx(alone, abs=1e-6)
    assert resampled_means(second, seed=4, num_resamples=200) != pytest.approx(alone, abs=1e-6)
    monkeypatch.setattr("search.statistics._MAX_COUNTS", 170)
    assert resampled_means(second, seed=3, num_resamples=200) == pytest.approx(alone, abs=1e-6)


def test_tables_of_the_same_galaxies_are_drawn_alike() -> None:
    wide, narrow = np.random.default_rng(5).random((60, 3)), np.random.default_rng(6).random((60, 1))
    together = resampled_together([wide, narrow], seed=3, num_resamples=100)
    assert [one.shape for one in together] == [(100, 3), (100, 1)]
    side_by_side = resampled_means(np.hstack([wide, narrow]), seed=3, num_resamples=100)
    assert np.hstack(together) == pytest.approx(side_by_side, abs=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.93])
def test_bootstrap_intervals_of_an_accuracy_cover_the_truth_in_95_of_100_surveys(share: float) -> None:
    covered = 0
    for survey in range(NUM_SURVEYS):
        right = np.random.default_rng([survey, 1]).random((400, 1)) < share
        low, high = percentile_interval(resampled_means(right, seed=survey, num_resamples=500)[:, 0])
        covered += low <= share <= high
    # 3 standard deviations of the count: sqrt(300 * 0.95 * 0.05) = 3.8.
    assert abs(covered - 0.95 * NUM_SURVEYS) <= 3 * 3.8


@pytest.mark.parametrize(("galaxy_sd", "seed_sd"), [(1.0, 0.0), (1.0, 1.0), (0.2, 1.0)])
def test_nothing_to_find_is_found_once_in_twenty_whatever_makes_the_chance(galaxy_sd: float, seed_sd: float) -> None:
    """Two networks, three seeds each, equally good; accuracies as drawn galaxies and drawn seeds make them."""
    num_runs, num_galaxies = 4000, 400
    rng = np.random.default_rng(5)
    seeds = rng.normal(0, seed_sd, (num_runs, 2, 3))
    by_galaxies = rng.normal(0, galaxy_sd, num_runs)
    difference = seeds[:, 0].mean(axis=1) - seeds[:, 1].mean(axis=1) + by_galaxies
    errors = seeds.std(axis=2, ddof=1) / math.sqrt(3)
    found = [
        difference_p_value(lead, [Spread(galaxy_sd, num_galaxies), Spread(first, 3), Spread(second, 3)])
        for lead, (first, second) in zip(difference, errors, strict=True)
    ]
    # Welch's approximation is on the safe side where seeds are few.
    assert 0.03 <= np.mean(np.array(found) < 0.05) <= 0.06


@pytest.mark.parametrize("seed", range(20))
def test_two_samples_are_compared_as_scipy_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.normal(0, 1, rng.integers(2, 7)) for _ in range(2))
    spreads = [Spread(float(np.std(one, ddof=1)) / math.sqrt(len(one)), len(one)) for one in (first, second)]
    expected = stats.ttest_ind(first, second, equal_var=False).pvalue
    found = difference_p_value(float(np.mean(first) - np.mean(second)), spreads)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_difference_without_any_spread() -> None:
    assert difference_p_value(0.0, [Spread(0.0, 9)]) == 1.0
    assert difference_p_value(0.1, [Spread(0.0, 9)]) == 0.0
    assert math.isnan(difference_p_value(math.nan, [Spread(0.1, 9)]))
    assert math.isnan(difference_p_value(0.1, [Spread(math.nan, 9)]))


def test_percentile_interval_is_the_central_share() -> None:
    # Of 0, 1, ..., 1000 the central 95 % lie from 25 to 975.
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert percentile_interval([math.nan, 1.0, 1.0]) == (1.0, 1.0)
    assert all(math.isnan(bound) for bound in percentile_interval([math.nan]))


@pytest.mark.parametrize(("right", "galaxies"), [(0, 10), (10, 10), (3, 10), (811, 1000), (1, 1)])
def test_wilson_interval_is_scipys(right: int, galaxies: int) -> None:
    expected = stats.binomtest(right, galaxies).proportion_ci(method="wilson")
    assert wilson_interval(right / galaxies, galaxies) == pytest.approx((expected.low, expected.high))


def test_wilson_interval_of_nothing_is_unknown() -> None:
    assert all(math.isnan(bound) for bound in (*wilson_interval(0.5, 0), *wilson_interval(math.nan, 10)))


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_sign_test_is_the_binomial_test_of_a_fair_coin(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert sign_p_value(first, second) == pytest.approx(expected, rel=1e-9)


def test_the_sign_test_by_hand() -> None:
    # 1 against 5: 2 (1 + 6) / 2^6.
    assert sign_p_value(1, 5) == pytest.approx(14 / 64)
    assert sign_p_value(6, 6) == 1.0
    assert sign_p_value(4000, 6000) < 1e-80


def test_holm_by_hand() -> None:
    # Sorted: 0.01 * 4, 0.013 * 3 (less than the one before, so that one's), 0.03 * 2, 0.04 * 1 (likewise).
    assert holm([0.03, 0.01, 0.04, 0.013]) == pytest.approx((0.06, 0.04, 0.06, 0.04))
    assert holm([0.5, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()
    adjusted = holm([0.02, math.nan, 0.01])
    assert (adjusted[0], adjusted[2]) == (0.02, 0.02)
    assert math.isnan(adjusted[1])
