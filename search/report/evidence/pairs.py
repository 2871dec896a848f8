"""Which backbones differ beyond chance, on the same test galaxies."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from search.report.evidence.standing import Standing, bootstrap_seed
from search.report.run_info import RunInfo
from search.statistics import Spread, difference_p_value, holm, percentile_interval, resampled_means, sign_p_value

# A difference is one if chance, among galaxies and seeds, makes it less often than this, all pairs considered.
SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two backbones on the same test galaxies.

    Attributes:
        first: the one with the better validation objective.
        second: the other.
        difference: accuracy of the first less that of the second; for votes RMSE of the second less that of the
            first. Above 0 the first does better.
        low: lower bound of its 95 % interval over galaxies.
        high: upper bound.
        first_better: galaxies that the first answers better, averaged over seeds.
        second_better: galaxies that the second does.
        galaxy_error: standard error of the difference over galaxies, of the paired bootstrap.
        seed_error: standard error of the difference over seeds; NaN where one has a single seed.
        p_value: chance of a difference as large, from both errors; from galaxies alone where seeds are unknown.
        p_adjusted: `p_value` after Holm, for the number of pairs.
        p_sign: of the exact sign test on the galaxies that one answers better; for classes and a single seed this is
            McNemar's test.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    first_better: int
    second_better: int
    galaxy_error: float
    seed_error: float
    p_value: float
    p_sign: float
    p_adjusted: float = math.nan

    @property
    def differs(self) -> bool:
        """Whether the two differ beyond chance."""
        return self.p_adjusted < SIGNIFICANCE

    @property
    def seeds_known(self) -> bool:
        """Whether the test counts the chance of the seeds."""
        return math.isfinite(self.seed_error)

    @property
    def better(self) -> str:
        """The one that does better on the test galaxies."""
        return self.first if self.difference > 0 else self.second


def compare(standings: Mapping[str, Standing], info: RunInfo) -> tuple[Pair, ...]:
    """Compare every two backbones whose answers are all there, each averaged over seeds.

    Args:
        standings: best validation objective first.
        info: the run.
    """
    names = [name for name, one in standings.items() if one.complete]
    if len(names) < 2:
        return ()
    votes = info.task.kind == "votes"
    each = {name: galaxy_scores(standings[name], votes=votes) for name in names}
    means = resampled_means(np.stack(list(each.values()), axis=1), seed=bootstrap_seed(info))
    draws = dict(zip(names, means.T, strict=True))
    metric = "rmse" if votes else "accuracy"
    pairs = []
    for first, second in combinations(names, 2):
        replicates = _overall(draws[first], votes=votes) - _overall(draws[second], votes=votes)
        difference = float(_overall(each[first].mean(), votes=votes) - _overall(each[second].mean(), votes=votes))
        low, high = percentile_interval(replicates)
        ahead, behind = _wins(each[first], each[second])
        p_sign = sign_p_value(ahead, behind)
        galaxies = Spread(float(replicates.std(ddof=1)), len(each[first]))
        seeds = [_over_seeds(standings[name], metric) for name in (first, second)]
        known = all(math.isfinite(one.error) for one in seeds)
        p_value = difference_p_value(difference, [galaxies, *(seeds if known else ())])
        pairs.append(
            Pair(
                first=first, second=second, difference=difference, low=low, high=high,
                first_better=ahead, second_better=behind,
                galaxy_error=galaxies.error, seed_error=math.hypot(*(one.error for one in seeds)),
                # Resampling cannot vary what is the same for every galaxy.
                p_value=p_value if galaxies.error > 0 else max(p_sign, p_value), p_sign=p_sign,
            )
        )  # fmt: skip
    adjusted = holm([pair.p_value for pair in pairs])
    return tuple(replace(pair, p_adjusted=p) for pair, p in zip(pairs, adjusted, strict=True))


def galaxy_scores(standing: Standing, *, votes: bool) -> NDArray[np.float64]:
    """How well each test galaxy is answered, averaged over seeds; more is better.

    Returns:
        (N,): share of seeds that are right, or minus the mean squared error over vote fractions.
    """
    if votes:
        parts = [-((one.outputs.astype(np.float64) - one.targets) ** 2).mean(axis=1) for one in standing.answers]
    else:
        parts = [(one.outputs.argmax(axis=1) == one.targets).astype(np.float64) for one in standing.answers]
    mean: NDArray[np.float64] = np.mean(parts, axis=0)
    return mean


def _overall(mean: NDArray[np.float64], *, votes: bool) -> NDArray[np.float64]:
    """The score of a split from the mean over its galaxies: the accuracy, or minus the RMSE."""
    return -np.sqrt(-mean) if votes else mean


def _wins(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[int, int]:
    # Means of a few zeros and ones: what differs by less than a rounding is a tie.
    difference = first - second
    return int((difference > 1e-9).sum()), int((difference < -1e-9).sum())


def _over_seeds(standing: Standing, metric: str) -> Spread:
    """Of a mean over seeds; NaN for a single one."""
    num_seeds = len(standing.runs)
    return Spread(standing.estimate("test", metric).spread / math.sqrt(num_seeds), num_seeds)
