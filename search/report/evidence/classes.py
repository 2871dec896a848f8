"""What a backbone does with each class: confusion, calibration, and which galaxies it takes for something else."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.report.evidence.scores import NUM_BINS
from search.report.evidence.standing import Standing

Floats = NDArray[np.float64]


def confusion(standing: Standing) -> Floats:
    """Test galaxies of each true class (row) that are given each class (column), averaged over seeds: (C, C)."""
    tables = []
    for answers in standing.answers:
        num_classes = answers.outputs.shape[1]
        cells = answers.targets * num_classes + answers.outputs.argmax(axis=1)
        counts = np.bincount(cells, minlength=num_classes**2)
        tables.append(counts.reshape(num_classes, num_classes))
    mean: Floats = np.mean(tables, axis=0)
    return mean


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, or predicted against voted fractions, in bins of equal width.

    Attributes:
        predicted: mean confidence, or predicted fraction, in each bin; NaN in an empty one.
        observed: share of right answers, or mean fraction of the volunteers.
        counts: answers in each bin, of all seeds.
    """

    predicted: Floats
    observed: Floats
    counts: NDArray[np.int64]


def class_reliability(standing: Standing) -> Reliability:
    """How often a backbone is right where it is how sure, over all seeds."""
    confidence = np.concatenate([one.outputs.max(axis=1) for one in standing.answers])
    right = np.concatenate([one.outputs.argmax(axis=1) == one.targets for one in standing.answers])
    return binned(confidence, right)


def vote_reliability(standing: Standing, columns: slice) -> Reliability:
    """What volunteers voted where a backbone predicts how much, over the answers of one question and all seeds."""
    predicted = np.concatenate([one.outputs[:, columns].ravel() for one in standing.answers])
    voted = np.concatenate([one.targets[:, columns].ravel() for one in standing.answers])
    return binned(predicted, voted)


def binned(predicted: NDArray[np.floating], observed: NDArray[np.generic]) -> Reliability:
    """Means in `NUM_BINS` bins of equal width over the predictions, which lie in [0, 1]."""
    bins = np.clip((predicted * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    sums = [
        np.bincount(bins, weights=values.astype(np.float64), minlength=NUM_BINS) for values in (predicted, observed)
    ]
    mean_predicted, mean_observed = (
        np.divide(s, counts, out=np.full(NUM_BINS, math.nan), where=counts > 0) for s in sums
    )
    return Reliability(mean_predicted, mean_observed, counts)


@dataclass(frozen=True)
class Mistakes:
    """Galaxies of one class that are taken for another.

    Attributes:
        true: index of their class.
        given: index of the class that they are given.
        count: how many, averaged over seeds.
        galaxies: ids of the clearest ones, each with the mean probability of the given class.
    """

    true: int
    given: int
    count: float
    galaxies: tuple[tuple[str, float], ...]


def main_mistakes(standing: Standing, *, num_pairs: int, num_galaxies: int) -> tuple[Mistakes, ...]:
    """The most frequent confusions, each with the galaxies on which the backbone is surest and wrong.

    Args:
        standing: a backbone with answers.
        num_pairs: confusions at most.
        num_galaxies: galaxies of each at most.
    """
    counts = confusion(standing)
    np.fill_diagonal(counts, 0)
    mean = np.mean([one.outputs for one in standing.answers], axis=0)
    targets, ids = standing.answers[0].targets, standing.answers[0].ids
    given = mean.argmax(axis=1)
    found = []
    for cell in np.argsort(-counts, axis=None, kind="stable")[:num_pairs]:
        true, wrong = divmod(int(cell), counts.shape[1])
        rows = np.flatnonzero((targets == true) & (given == wrong))
        rows = rows[np.argsort(-mean[rows, wrong], kind="stable")][:num_galaxies]
        if counts[true, wrong] > 0 and len(rows):
            galaxies = tuple((str(ids[row]), float(mean[row, wrong])) for row in rows)
            found.append(Mistakes(true, wrong, float(counts[true, wrong]), galaxies))
    return tuple(found)
