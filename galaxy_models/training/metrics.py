"""How good answers are: what is reported for each split, and what a search optimises."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from galaxy_models.task import METRICS, TaskKind

NUM_ECE_BINS = 15


def measure(
    kind: TaskKind, logits: Tensor, targets: Tensor, *, outputs: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """Compute every metric of a task over a whole split at once.

    Args:
        kind: classes or votes.
        logits: (N, A) float, N at least 1.
        targets: (N,) int64 class indices, or (N, A) vote fractions.
        outputs: the model's function from logits to probabilities or vote fractions.

    Returns:
        A value for each name in `METRICS[kind]`; NaN for all if a logit is not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        return dict.fromkeys(METRICS[kind], math.nan)
    if kind == "votes":
        return {"rmse": vote_rmse(outputs(logits), targets)}
    return class_metrics(logits, outputs(logits), targets)


def class_metrics(logits: Tensor, probabilities: Tensor, targets: Tensor) -> dict[str, float]:
    """Metrics of single-class answers.

    Classes may be absent from a split. `balanced_accuracy` is the mean recall over the classes that have galaxies;
    `precision`, `recall` and `f1` are means over the classes that have galaxies or are answered, as in scikit-learn,
    with 0 for a class that has galaxies and is never answered; `auroc` is one-vs-rest, the mean over the classes that
    have galaxies, and NaN if only one has.

    Args:
        logits: (N, C) finite floats.
        probabilities: (N, C) their softmax.
        targets: (N,) int64 class indices.

    Returns:
        `nll` (mean negative log-likelihood in nats, unsmoothed and unweighted), `accuracy`, `balanced_accuracy`,
        `precision`, `recall`, `f1`, `auroc`, and `ece` (expected calibration error of the answered class, in
        `NUM_ECE_BINS` bins of equal width; Guo et al. 2017, arXiv:1706.04599).
    """
    num_classes = logits.shape[1]
    predictions = probabilities.argmax(dim=1)
    present = torch.bincount(targets, minlength=num_classes) > 0

    def score(metric: Callable[..., Tensor], average: str | None) -> Tensor:
        return metric(predictions, targets, num_classes=num_classes, average=average, validate_args=False)

    values = {
        "nll": functional.cross_entropy(logits.double(), targets),
        "accuracy": score(multiclass_accuracy, "micro"),
        "balanced_accuracy": score(multiclass_recall, None)[present].mean(),
        "precision": score(multiclass_precision, "macro"),
        "recall": score(multiclass_recall, "macro"),
        "f1": score(multiclass_f1_score, "macro"),
        "auroc": _auroc(probabilities, targets, present),
        "ece": multiclass_calibration_error(
            probabilities, targets, num_classes=num_classes, n_bins=NUM_ECE_BINS, validate_args=False
        ),
    }
    return {name: float(values[name]) for name in METRICS["classes"]}


def vote_rmse(fractions: Tensor, targets: Tensor) -> float:
    """Root of the mean squared error over galaxies and columns, the score of the Kaggle Galaxy Zoo challenge.

    Args:
        fractions: (N, A) predicted vote fractions.
        targets: (N, A) vote fractions of the volunteers.
    """
    return float(functional.mse_loss(fractions.double(), targets.double()).sqrt())


def _auroc(probabilities: Tensor, targets: Tensor, present: Tensor) -> Tensor:
    num_present = int(present.sum())
    if num_present < 2:
        return torch.tensor(math.nan)
    # Only columns of classes that have galaxies: for the others torchmetrics warns and counts a 0.
    renumbered = torch.cumsum(present, dim=0)[targets] - 1
    return multiclass_auroc(
        probabilities[:, present], renumbered, num_classes=num_present, average="macro", validate_args=False
    )
