"""What a step of training minimises. No metric and no objective: hyperparameters change it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from galaxy_models.config import TrainConfig
from galaxy_models.task import Task, TaskKind


def class_loss(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy, each galaxy weighted by its class.

    The mean is over galaxies, not over weights: a batch of common galaxies alone then counts as little as it should.

    Args:
        logits: (B, C) float.
        targets: (B,) int64 class indices.
        label_smoothing: share of each label spread evenly over all classes, in [0, 1).
        class_weights: (C,) float, see `balance_weights`; None = all 1.
    """
    losses = functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing, reduction="none")
    return losses.mean() if class_weights is None else (losses * class_weights[targets]).mean()


def vote_loss(fractions: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over galaxies and columns: the square of the Kaggle challenge's score.

    Args:
        fractions: (B, A) predicted vote fractions.
        targets: (B, A) vote fractions of the volunteers.
    """
    return functional.mse_loss(fractions, targets)


def balance_weights(labels: npt.NDArray[np.int64], *, num_classes: int) -> Tensor:
    """Weight each class by the inverse of its frequency, so that each that occurs counts the same in total.

    Args:
        labels: (N,) int64 class of each training galaxy.
        num_classes: number of classes, C.

    Returns:
        (C,) float32; their mean over the galaxies is 1. A class without galaxies is weighted as if it had one, since
        a mirror image can make it occur.
    """
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights.astype(np.float32))


@dataclass(frozen=True)
class TrainLoss:
    """The training loss of one configuration.

    Label smoothing and class balance concern classes only; for votes they do nothing.

    Attributes:
        kind: the survey's task.
        label_smoothing: see `class_loss`.
        class_weights: see `class_loss`.
    """

    kind: TaskKind
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    @classmethod
    def for_config(cls, config: TrainConfig, task: Task, *, targets: npt.NDArray[np.generic]) -> "TrainLoss":
        """The loss that a configuration asks for.

        Args:
            config: gives `label_smoothing` and `class_balance`.
            task: classes or votes.
            targets: the training galaxies' targets, from which class weights are counted.
        """
        if task.kind == "votes":
            return cls("votes")
        weights = None
        if config.class_balance == "loss":
            weights = balance_weights(targets.astype(np.int64, copy=False), num_classes=task.num_outputs)
        return cls("classes", label_smoothing=config.label_smoothing, class_weights=weights)

    def __call__(self, logits: Tensor, targets: Tensor, *, outputs: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute the loss of a batch.

        Args:
            logits: (B, A) float.
            targets: (B,) int64 class indices, or (B, A) float32 vote fractions.
            outputs: the model's function from logits to vote fractions.
        """
        if self.kind == "votes":
            return vote_loss(outputs(logits), targets)
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        return class_loss(logits, targets, label_smoothing=self.label_smoothing, class_weights=weights)
