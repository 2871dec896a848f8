"""Answers of a network for a whole split, and how good they are."""

import time
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from galaxy_models.config import TrainConfig
from galaxy_models.data.augment import prepare
from galaxy_models.data.batches import iterate_batches
from galaxy_models.data.order import batch_slices
from galaxy_models.data.shards import Split
from galaxy_models.models.galaxy_model import GalaxyModel
from galaxy_models.training.memory import MicroBatch
from galaxy_models.training.metrics import measure
from galaxy_models.training.runtime import Precision, Runtime, move, resolve_precision
from galaxy_models.training.survey import SurveyData

EVAL_BATCH = 64


def evaluate(
    model: GalaxyModel, survey: SurveyData, split: str, *, config: TrainConfig, runtime: Runtime
) -> dict[str, float]:
    """Measure a network on one split, unvaried images in evaluation mode.

    Args:
        model: the network; it is moved to the runtime's device.
        survey: where the split lies.
        split: `train`, `val` or `test`.
        config: gives the image size and the precision.
        runtime: where to compute.

    Returns:
        A value for each of the task's metrics, and `images_per_s`: galaxies answered in a second. NaN for every
        metric if an answer is not finite.

    Raises:
        OutOfMemoryError: a single image does not fit.
    """
    start = time.perf_counter()
    logits = _answer(model, survey.split(split), config=config, runtime=runtime)
    seconds = time.perf_counter() - start
    data = survey.split(split)
    targets = torch.from_numpy(data.targets).to(logits.device)
    metrics = measure(survey.task.kind, logits, targets, outputs=model.outputs)
    return {**metrics, "images_per_s": data.num_rows / seconds}


def predict(
    model: GalaxyModel, survey: SurveyData, split: str, *, config: TrainConfig, runtime: Runtime
) -> npt.NDArray[np.float32]:
    """Answer for every galaxy of a split, in the order of its `ids`.

    Args:
        model: the network; it is moved to the runtime's device.
        survey: where the split lies.
        split: `train`, `val` or `test`.
        config: gives the image size and the precision.
        runtime: where to compute.

    Returns:
        (N, A) float32: class probabilities, or cumulative vote fractions that obey the decision tree.
    """
    logits = _answer(model, survey.split(split), config=config, runtime=runtime)
    with torch.inference_mode():
        answers: npt.NDArray[np.float32] = model.outputs(logits).cpu().numpy()
    return answers


def predict_logits(
    model: GalaxyModel,
    split: Split,
    *,
    image_px: int,
    precision: Precision,
    micro_batch: MicroBatch | None = None,
    rows: npt.NDArray[np.int64] | None = None,
) -> Tensor:
    """Run a network over a split; it is left in evaluation mode.

    Where memory runs out, batches are halved: an image's answer does not depend on its neighbours, apart from the
    roundings of another order of summation.

    Args:
        model: the network, on the device of `precision`.
        split: the galaxies.
        image_px: side of the images it sees, in pixels.
        precision: number format to compute in.
        micro_batch: how many images to answer at once, kept from call to call; None = start at `EVAL_BATCH`.
        rows: (N,) int64, which galaxies to answer for, one at least; None = all.

    Returns:
        (N, A) float32 logits in the order of `rows`, or of the split, on the device.

    Raises:
        OutOfMemoryError: a single image does not fit.
    """
    model.eval()
    micro_batch = micro_batch or MicroBatch(EVAL_BATCH, precision.device)

    def answer(images: Tensor, size: int) -> Tensor:
        parts = []
        for part in batch_slices(len(images), size):
            prepared = prepare(move(images[part], precision.device), image_px=image_px)
            with precision.autocast():
                parts.append(model(prepared).float())
        return torch.cat(parts)

    with torch.inference_mode():
        rows = np.arange(split.num_rows) if rows is None else rows
        batches = iterate_batches(split, rows, batch_size=EVAL_BATCH)
        return torch.cat([micro_batch.run(partial(answer, batch.images), len(batch.rows)) for batch in batches])


def _answer(model: GalaxyModel, split: Split, *, config: TrainConfig, runtime: Runtime) -> Tensor:
    device = runtime.activate()
    precision = resolve_precision(config.precision, device)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return predict_logits(model, split, image_px=config.image_px or split.px, precision=precision)
