"""Which backbones differ beyond chance, on the same test galaxies."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from search.report.evidence.standing import Standing, bootstrap_seed
from search.report.run_info import RunInfo
from search.statistics import holm, mcnemar_p_value, paired_p_value, percentile_interval, resampled_means

# A difference is one if chance among galaxies makes it less often than this, all pairs considered,
SIGNIFICANCE = 0.05
# and if it is more than this many standard errors over seeds.
SEED_ERRORS = 2.0


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
        p_bootstrap: of the paired bootstrap.
        p_mcnemar: of the exact McNemar test on those galaxies.
        p_adjusted: `p_bootstrap` after Holm, for the number of pairs.
        seed_error: standard error of the difference over seeds; NaN where one has a single seed.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    first_better: int
    second_better: int
    p_bootstrap: float
    p_mcnemar: float
    p_adjusted: float = math.nan
    seed_error: float = math.nan

    @property
    def within_seeds(self) -> bool:
        """Whether other seeds alone could have made the difference; unknown seeds do not say so."""
        return abs(self.difference) <= SEED_ERRORS * self.seed_error

    @property
    def differs(self) -> bool:
        """Whether the two differ beyond chance."""
        return self.p_adjusted < SIGNIFICANCE and not self.within_seeds

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
        pairs.append(
            Pair(
                first=first, second=second, difference=difference, low=low, high=high,
                first_better=ahead, second_better=behind,
                p_bootstrap=paired_p_value(replicates, difference), p_mcnemar=mcnemar_p_value(ahead, behind),
                seed_error=_seed_error(standings[first], standings[second], metric),
            )
        )  # fmt: skip
    adjusted = holm([pair.p_bootstrap for pair in pairs])
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


def _seed_error(first: Standing, second: Standing, metric: str) -> float:
    spreads = [one.estimate("test", metric).spread / math.sqrt(len(one.runs)) for one in (first, second)]
    return math.hypot(*spreads)
