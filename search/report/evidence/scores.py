"""Scores as functions of means over galaxies, so that a bootstrap of the means is one of the scores.

A network's answers become columns, a row a galaxy. Every score follows from the columns' means: the observed ones give
the score, resampled ones its replicates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxy_models.task import Task
from search.report.evidence.answers import Answers
from search.statistics import absolute_sum

Floats = NDArray[np.float64]

# Bins of the expected calibration error, as in training; Guo et al. 2017, arXiv:1706.04599.
NUM_BINS = 15
# Probabilities are kept in float32; what underflowed there must not make the mean infinite.
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Columns:
    """What one set of answers contributes.

    Attributes:
        values: (N, K) a row a galaxy.
        scores: turns (..., K) means of the columns into an array (...) for each score.
        gaps: which columns are confidence less right answers, a bin each; None for votes.
    """

    values: Floats
    scores: Callable[[Floats], dict[str, Floats]]
    gaps: slice | None = None

    def observed(self) -> dict[str, float]:
        """The scores of the galaxies as they are."""
        return {name: float(value) for name, value in self.scores(self.values.mean(axis=0)).items()}


def columns_of(answers: Answers, task: Task, *, averaged: bool) -> Columns | None:
    """The columns of a network's answers; None for averaged ones where there are none."""
    outputs = answers.averaged if averaged else answers.outputs
    if outputs is None:
        return None
    if task.kind == "votes":
        return vote_columns(answers.targets, outputs)
    return class_columns(answers.targets, outputs)


def class_columns(targets: NDArray[np.int64], probabilities: NDArray[np.float32]) -> Columns:
    """Columns for the scores of `galaxy_models.training.metrics.class_metrics`.

    Args:
        targets: (N,) class indices.
        probabilities: (N, C).

    Returns:
        Columns whose scores are `nll`, `accuracy`, `balanced_accuracy`, `precision`, `recall`, `f1`, `auroc`, `ece`,
        and for each class c `recall:c`, `precision:c` and `f1:c`. Replicates of AUROC are its first-order expansion
        in the resampled placements (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, 837).

        A class of which a resample draws no galaxy has no recall there, and counts neither in `balanced_accuracy` nor
        in `recall`. A class that is answered, but of which there is no galaxy at all, counts in `recall` with 0 and
        not in `balanced_accuracy`, as in scikit-learn, and does so in every resample. Where all classes have galaxies
        both are the same, replicate by replicate.
    """
    num_classes = probabilities.shape[1]
    classes = np.arange(num_classes)
    confidence, predictions = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1)
    true, answered = targets[:, None] == classes, predictions[:, None] == classes
    bins = np.digitize(confidence, np.linspace(0, 1, NUM_BINS + 1)) - 1
    gaps = (confidence - (predictions == targets))[:, None] * (bins[:, None] == np.arange(NUM_BINS + 1))
    log_p = -np.log(np.maximum(probabilities[np.arange(len(targets)), targets].astype(np.float64), _SMALLEST))
    placements = _placements(true, probabilities)
    parts = (true, answered, true & answered, gaps, log_p[:, None], true * placements, ~true * placements)
    values = np.concatenate(parts, axis=1, dtype=np.float64)
    ends = np.cumsum([part.shape[1] for part in parts])[:-1]
    answered_in_vain = answered.any(axis=0) & ~true.any(axis=0)
    auroc = _ratio((true * placements).mean(axis=0), true.mean(axis=0))

    def scores(means: Floats) -> dict[str, Floats]:
        share, given, hits, gap, nll, above, below = np.split(means, ends, axis=-1)
        found = _confusion_scores(share, given, hits, answered_in_vain)
        area = np.clip(_ratio(above, share) + _ratio(below, 1 - share) - auroc, 0.0, 1.0)
        found["auroc"] = _mean_over_classes(area, (share > 0) & (share < 1))
        found["ece"] = np.abs(gap).sum(axis=-1)
        found["nll"] = nll[..., 0]
        return found

    return Columns(values, scores, gaps=slice(int(ends[2]), int(ends[3])))


def calibration_error(
    columns: Sequence[Columns], replicates: Sequence[Floats]
) -> tuple[float, float, float, float] | None:
    """What a calibration error on a finite sample says of that of the population, mean over networks.

    Args:
        columns: of each network's answers for the same galaxies.
        replicates: (B, K) resampled means of each network's columns, drawn alike.

    Returns:
        The error freed of its bias, the bounds of its 95 % interval, and the error that calibrated networks would
        show on average on such a sample; None for votes.
    """
    if any(one.gaps is None for one in columns):
        return None
    observed = np.stack([one.values[:, one.gaps].mean(axis=0) for one in columns])
    draws = np.stack([means[:, one.gaps] for one, means in zip(columns, replicates, strict=True)])
    by_chance = float(np.abs(draws - observed[:, None, :]).sum(axis=2).mean())
    return *absolute_sum(observed, draws), by_chance


def vote_columns(targets: NDArray[np.float32], fractions: NDArray[np.float32]) -> Columns:
    """Columns for the RMSE of vote fractions: `rmse` over all, and `rmse:a` for each column a."""
    errors = (fractions.astype(np.float64) - targets) ** 2

    def scores(means: Floats) -> dict[str, Floats]:
        each = {f"rmse:{index}": np.sqrt(means[..., index]) for index in range(means.shape[-1])}
        return {"rmse": np.sqrt(means.mean(axis=-1)), **each}

    return Columns(errors, scores)


def _confusion_scores(
    share: Floats, given: Floats, hits: Floats, answered_in_vain: NDArray[np.bool_]
) -> dict[str, Floats]:
    """Scores that follow from shares of true, answered and rightly answered galaxies of each class, (..., C).

    `answered_in_vain`, (C,), are the classes that are answered, but of which there is no galaxy at all.
    """
    present, seen = share > 0, (share > 0) | (given > 0)
    # As in scikit-learn: 0 where a class that has galaxies is never answered, or the reverse.
    recall, precision = _ratio(hits, share, empty=0.0), _ratio(hits, given, empty=0.0)
    f1 = _ratio(2 * hits, share + given, empty=0.0)
    each = {"recall": recall, "precision": precision, "f1": f1}
    found = {f"{name}:{c}": values[..., c] for name, values in each.items() for c in range(share.shape[-1])}
    counted = {"recall": present | answered_in_vain, "precision": seen, "f1": seen}
    found |= {name: _mean_over_classes(values, counted[name]) for name, values in each.items()}
    found["accuracy"] = hits.sum(axis=-1)
    found["balanced_accuracy"] = _mean_over_classes(recall, present)
    return found


def _mean_over_classes(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    total = np.where(counted, values, 0.0).sum(axis=-1)
    return _ratio(total, counted.sum(axis=-1).astype(np.float64))


def _ratio(above: Floats, below: Floats, *, empty: float = np.nan) -> Floats:
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, empty), where=below > 0)


def _placements(true: NDArray[np.bool_], scores: NDArray[np.float32]) -> Floats:
    """For each galaxy and class, the share of galaxies on the other side of the class that it is placed rightly to.

    A galaxy of the class: the share of the others with a lower score; another: the share of the class with a higher
    one. Ties count half. Their means over the class, and over the others, are both the AUROC.
    """
    placed = np.full(scores.shape, 0.5)
    for c in range(scores.shape[1]):
        inside, outside = scores[true[:, c], c], scores[~true[:, c], c]
        if len(inside) and len(outside):
            placed[true[:, c], c] = _share_below(np.sort(outside), inside)
            placed[~true[:, c], c] = 1 - _share_below(np.sort(inside), outside)
    return placed


def _share_below(ordered: NDArray[np.float32], values: NDArray[np.float32]) -> Floats:
    lower, upper = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (lower + upper) / (2 * len(ordered))
