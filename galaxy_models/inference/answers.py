"""Answers of a network, as it gives them and averaged over the eight symmetries of the square."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from galaxy_models.data.augment import NUM_SYMMETRIES, apply_symmetries, prepare
from galaxy_models.data.batches import iterate_batches
from galaxy_models.data.order import batch_slices
from galaxy_models.data.shards import Split
from galaxy_models.models.galaxy_model import GalaxyModel
from galaxy_models.task import METRICS, Task
from galaxy_models.training.evaluation import EVAL_BATCH
from galaxy_models.training.memory import MicroBatch
from galaxy_models.training.metrics import class_metrics, vote_rmse
from galaxy_models.training.runtime import Precision, move

# A probability is taken to be at least this before its logarithm: the smallest normal float32.
_SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Answers:
    """A network's answers for N galaxies: class probabilities, or vote fractions.

    Attributes:
        plain: (N, A) float32, as the network gives them.
        averaged: (N, A) float32, their mean over the eight symmetries; None if only the plain ones were asked for.
        spread: (N, A) float32, their standard deviation over the eight symmetries (divisor 8); None likewise.
    """

    plain: Tensor
    averaged: Tensor | None = None
    spread: Tensor | None = None


def answer_images(
    model: GalaxyModel, images: Tensor, task: Task, *, image_px: int, precision: Precision, average: bool
) -> Answers:
    """Answer for one batch of images.

    A mirror image exchanges the task's mirror pairs, so answers for one are put back in the order of the image that
    was mirrored before they are averaged. Averages of vote fractions obey the decision tree as each of them does: its
    rules are sums.

    Args:
        model: the network in evaluation mode, on the device of `precision`.
        images: (B, 3, px, px) uint8, channels_last.
        task: what it answers.
        image_px: side of the images it sees, in pixels.
        precision: number format to compute in.
        average: whether to average over the symmetries too, which takes eight times as long.
    """
    with torch.inference_mode():
        prepared = prepare(move(images, precision.device), image_px=image_px)
        plain = _outputs(model, prepared, precision)
        if not average:
            return Answers(plain)
        order = torch.tensor(task.mirror_order, device=plain.device)
        turned = [plain]
        for number in range(1, NUM_SYMMETRIES):
            outputs = _outputs(model, apply_symmetries(prepared, [number] * len(prepared)), precision)
            # Each of the three steps of which a symmetry is made mirrors the image.
            turned.append(outputs[:, order] if number.bit_count() % 2 else outputs)
        stacked = torch.stack(turned)
        return Answers(plain, stacked.mean(dim=0), stacked.std(dim=0, correction=0))


def answer_in_parts(
    model: GalaxyModel,
    images: Tensor,
    task: Task,
    *,
    image_px: int,
    precision: Precision,
    average: bool,
    micro_batch: MicroBatch,
) -> Answers:
    """Answer for one batch as `answer_images` does, on the processor, in halves and quarters where memory runs out.

    Raises:
        OutOfMemoryError: a single image does not fit.
    """

    def answer(size: int) -> Answers:
        return _join(
            [
                answer_images(model, images[part], task, image_px=image_px, precision=precision, average=average)
                for part in batch_slices(len(images), size)
            ]
        )

    return micro_batch.run(answer, len(images))


def answer_split(
    model: GalaxyModel, split: Split, task: Task, *, image_px: int, precision: Precision, average: bool
) -> Answers:
    """Answer for every galaxy of a split, in the order of its `ids`; see `answer_in_parts`."""
    model.eval()
    answer = partial(
        answer_in_parts,
        image_px=image_px,
        precision=precision,
        average=average,
        micro_batch=MicroBatch(EVAL_BATCH, precision.device),
    )
    batches = iterate_batches(split, np.arange(split.num_rows), batch_size=EVAL_BATCH)
    return _join([answer(model, batch.images, task) for batch in batches])


def measure_answers(task: Task, answers: Tensor, targets: Tensor) -> dict[str, float]:
    """Compute every metric of a task from its answers alone.

    Args:
        task: classes or votes.
        answers: (N, A) class probabilities, rows summing to 1, or vote fractions.
        targets: (N,) int64 class indices, or (N, A) vote fractions.

    Returns:
        A value for each name in `METRICS[task.kind]`; NaN for all if an answer is not finite.
    """
    if not bool(torch.isfinite(answers).all()):
        return dict.fromkeys(METRICS[task.kind], math.nan)
    if task.kind == "votes":
        return {"rmse": vote_rmse(answers, targets)}
    return class_metrics(answers.clamp(min=_SMALLEST).log(), answers, targets)


def _outputs(model: GalaxyModel, images: Tensor, precision: Precision) -> Tensor:
    with precision.autocast():
        logits = model(images)
    return model.outputs(logits)


def _join(parts: Sequence[Answers]) -> Answers:
    """The answers of several batches, at least one, after one another and on the processor."""
    averaged = [part.averaged.cpu() for part in parts if part.averaged is not None]
    spread = [part.spread.cpu() for part in parts if part.spread is not None]
    return Answers(
        torch.cat([part.plain.cpu() for part in parts]),
        torch.cat(averaged) if averaged else None,
        torch.cat(spread) if spread else None,
    )
