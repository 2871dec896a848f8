"""How far numbers measured on a few galaxies can be trusted: bootstrap intervals and paired tests.

Pure functions of their inputs. A bootstrap draws the galaxies again with replacement; the same seed and the same
number of galaxies give the same draws, so that two networks' replicates are paired without being computed together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
NUM_RESAMPLES = 2000
# Draws held in memory at once; 4e6 counts of 4 bytes are 16 MB.
_MAX_COUNTS = 4_000_000
# Of a bisection: to less than a thousandth of a standard error.
_NUM_HALVINGS = 16


def resampled_means(columns: ArrayLike, *, seed: int, num_resamples: int = NUM_RESAMPLES) -> Floats:
    """Means of columns over galaxies that are drawn again with replacement.

    Whatever is a function of means (shares, mean errors, all that follows from a confusion matrix) has its bootstrap
    replicates as that function of these rows.

    Args:
        columns: (N, K) finite values, N at least 1.
        seed: of the draws.
        num_resamples: number of draws B.

    Returns:
        (B, K) means, a row a draw.

    Source:
        Efron 1979, Annals of Statistics 7, 1.
    """
    return resampled_together([columns], seed=seed, num_resamples=num_resamples)[0]


def resampled_together(tables: Sequence[ArrayLike], *, seed: int, num_resamples: int = NUM_RESAMPLES) -> list[Floats]:
    """`resampled_means` of several tables of the same galaxies; drawing once for all takes a fraction of the time.

    Args:
        tables: at least one, each (N, K) finite values with its own K, N at least 1.
        seed: of the draws.
        num_resamples: number of draws B.

    Returns:
        (B, K) means for each table.
    """
    # Float32 halves the time of the product; its rounding is far below the scatter of the draws.
    values = [np.ascontiguousarray(table, dtype=np.float32) for table in tables]
    num_items = len(values[0])
    generator = np.random.default_rng(seed)
    parts: list[list[Floats]] = [[] for _ in values]
    for start in range(0, num_resamples, size := max(1, _MAX_COUNTS // num_items)):
        num_draws = min(size, num_resamples - start)
        drawn = generator.integers(0, num_items, size=(num_draws, num_items))
        drawn += np.arange(num_draws)[:, None] * num_items
        counts = np.bincount(drawn.ravel(), minlength=num_draws * num_items)
        weights = counts.reshape(num_draws, num_items).astype(np.float32)
        for found, table in zip(parts, values, strict=True):
            found.append((weights @ table).astype(np.float64) / num_items)
    return [np.concatenate(found) for found in parts]


def percentile_interval(replicates: ArrayLike, *, level: float = LEVEL) -> tuple[float, float]:
    """The central share of bootstrap replicates.

    Args:
        replicates: (B,) values of a statistic on resampled data; those that are not finite are left out.
        level: share of the replicates inside.

    Returns:
        Lower and upper bound; NaN without a finite replicate.
    """
    values = np.asarray(replicates, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def absolute_sum(observed: Floats, draws: Floats, *, level: float = LEVEL) -> tuple[float, float, float]:
    """Estimate a sum of absolute means, such as a calibration error in bins, from a finite sample.

    The observed sum is too large: each mean has an error, and its absolute value gains by it whatever its sign. Drawn
    again, errors come on top of errors, so neither the bootstrap's percentiles nor their reflection hold the truth.
    Here tests are inverted instead. A family of possible truths goes from no mean at all through the observed means
    to larger ones: each mean is shrunk by the same multiple of its standard error, down to 0, or grows by it. In the
    interval are the sums of those under which the observed sum is no surprise, and the estimate is that of which it
    is the median. In simulated surveys of 120 to 2,000 galaxies the intervals of 95 % held the truth in 91 to 99 of
    100, least often where one mean or all of them are off by the same; if the truth is 0 in 94 to 99, since only the
    lower bound can miss that. Of 60 galaxies too little is seen: they held a truth of 0 in 82 to 90.

    Args:
        observed: (S, K) means of K terms for each of S networks; the sum is averaged over the networks.
        draws: (S, B, K) the same of resampled data, drawn alike for all networks.
        level: share of samples whose interval holds the truth.

    Returns:
        The estimate, the lower and the upper bound; at least 0.

    Source:
        Soft thresholding: Donoho & Johnstone 1994, Biometrika 81, 425. The bias: Broecker 2012, Climate Dynamics 39,
        655; Kumar, Liang & Ma 2019, arXiv:1909.10155.
    """
    noise = draws - observed[:, None, :]
    errors = noise.std(axis=1)
    found = float(np.abs(observed).sum(axis=1).mean())

    def truth(shrinkage: float) -> Floats:
        moved: Floats = np.sign(observed) * np.maximum(np.abs(observed) - shrinkage * errors, 0.0)
        return moved

    def bound(share: float) -> float:
        """The sum of the possible truth under which this share of samples has a smaller sum than was found."""

        def excess(shrinkage: float) -> float:
            sums = np.abs(truth(shrinkage)[:, None, :] + noise).sum(axis=2).mean(axis=0)
            return float(np.quantile(sums, share)) - found

        low, high = -1.0, float(np.divide(np.abs(observed), errors, out=np.zeros_like(errors), where=errors > 0).max())
        while excess(low) < 0:
            low *= 2
        if excess(high) < 0:
            for _ in range(_NUM_HALVINGS):
                middle = (low + high) / 2
                low, high = (low, middle) if excess(middle) < 0 else (middle, high)
        return float(np.abs(truth(high)).sum(axis=1).mean())

    return bound(0.5), bound((1 + level) / 2), bound((1 - level) / 2)


def wilson_interval(share: float, num_items: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a binomial share, which holds its level for few galaxies and for shares of 0 and 1.

    Args:
        share: share of successes in [0, 1]; a mean over seeds need not be a whole number of galaxies.
        num_items: galaxies the share is of.
        level: confidence level.

    Returns:
        Lower and upper bound in [0, 1]; NaN for no galaxies or no share.

    Source:
        Wilson 1927, JASA 22, 209.
    """
    if not num_items > 0 or not 0 <= share <= 1:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + level) / 2)
    scale = 1 + z**2 / num_items
    centre = (share + z**2 / (2 * num_items)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / num_items + z**2 / (4 * num_items**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Spread:
    """What one source of chance does to a difference.

    Attributes:
        error: standard error of the difference that it makes; at least 0.
        num_drawn: of how many independent draws that was estimated; at least 2.
    """

    error: float
    num_drawn: int


def difference_p_value(difference: float, spreads: Sequence[Spread]) -> float:
    """Two-sided p-value of a difference that several independent sources of chance can make, by Welch's t test.

    Args:
        difference: the one that was observed.
        spreads: of each source.

    Returns:
        Chance of a difference at least as large if there is none; NaN where something is not finite. Without any
        spread it is 1 for no difference and 0 for another.

    Source:
        Welch 1947, Biometrika 34, 28; degrees of freedom after Satterthwaite 1946, Biometrics Bulletin 2, 110.
    """
    from scipy.special import stdtr

    variances = [one.error**2 for one in spreads]
    total = math.fsum(variances)
    if not math.isfinite(difference) or not math.isfinite(total):
        return math.nan
    if total == 0:
        return 1.0 if difference == 0 else 0.0
    parts = math.fsum(one**2 / (of.num_drawn - 1) for one, of in zip(variances, spreads, strict=True))
    return min(1.0, 2 * float(stdtr(total**2 / parts, -abs(difference) / math.sqrt(total))))


def sign_p_value(num_first: int, num_second: int) -> float:
    """Exact two-sided sign test: is one network better as often as the other, on the galaxies where they differ?

    Args:
        num_first: galaxies on which the first alone is right, or does better.
        num_second: those on which the second is.

    Returns:
        Probability, with a fair coin, of a split at least as uneven; 1 where they never differ. For right and wrong
        answers of two networks it is McNemar's test.

    Source:
        McNemar 1947, Psychometrika 12, 153, with the exact binomial distribution.
    """
    total, smaller = num_first + num_second, min(num_first, num_second)
    if not total:
        return 1.0
    log_all = math.lgamma(total + 1) - total * math.log(2)
    tail = math.fsum(
        math.exp(log_all - math.lgamma(count + 1) - math.lgamma(total - count + 1)) for count in range(smaller + 1)
    )
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values for their number, so that all claims together are wrong by chance at the stated rate.

    Args:
        p_values: one for each comparison; NaN stays NaN and does not count.

    Returns:
        Adjusted p-values in the same order, at most 1.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6, 65.
    """
    order = sorted((index for index, p in enumerate(p_values) if not math.isnan(p)), key=lambda index: p_values[index])
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)
