"""Batch normalisation's statistics, measured anew for the weights at the end of an epoch."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from galaxy_models.data.augment import prepare
from galaxy_models.data.batches import iterate_batches
from galaxy_models.data.shards import Split
from galaxy_models.training.memory import MicroBatch
from galaxy_models.training.runtime import Precision, move

STATISTICS_BATCH = 64


def refresh_batch_statistics(
    model: nn.Module,
    split: Split,
    rows: npt.NDArray[np.int64],
    *,
    image_px: int,
    precision: Precision,
    micro_batch: MicroBatch | None = None,
) -> None:
    """Replace the running statistics of trained batch norms by means over galaxies seen with the present weights.

    The running means of training lag behind the weights. While the learning rate is high this can double the
    validation loss, so that a comparison of early epochs would compare the lag. Layers that are frozen keep theirs.

    Where memory runs out, all is measured again in batches of half the size. Statistics are means over batches:
    in smaller ones variances leave out a little more of the spread between batches.

    Args:
        model: the network, on the device of `precision`; left in evaluation mode.
        split: the training galaxies.
        rows: (M,) int64, which of them to look at, unvaried.
        image_px: side of the images it sees, in pixels.
        precision: number format to compute in.
        micro_batch: how many images to look at at once, kept from call to call; None = start at `STATISTICS_BATCH`.

    Raises:
        OutOfMemoryError: a single image does not fit.

    Source:
        Wu and Johnson 2021, "Rethinking Batch in BatchNorm", arXiv:2105.07576, section 3.
    """
    model.train()
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    model.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        # None is torch's word for the plain mean over all batches.
        norm.momentum = None
        norm.train()

    def look(size: int) -> None:
        for norm in norms:
            norm.reset_running_stats()
        for batch in iterate_batches(split, rows, batch_size=size):
            model(prepare(move(batch.images, precision.device), image_px=image_px))

    micro_batch = micro_batch or MicroBatch(STATISTICS_BATCH, precision.device)
    try:
        with torch.inference_mode(), precision.autocast():
            micro_batch.run(look, min(STATISTICS_BATCH, len(rows)))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
