"""Batch normalisation's statistics, measured anew for the weights at the end of an epoch."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from galaxy_models.data.augment import prepare
from galaxy_models.data.batches import iterate_batches
from galaxy_models.data.shards import Split
from galaxy_models.training.runtime import Precision, move

STATISTICS_BATCH = 64


def refresh_batch_statistics(
    model: nn.Module, split: Split, rows: npt.NDArray[np.int64], *, image_px: int, precision: Precision
) -> None:
    """Replace the running statistics of trained batch norms by means over galaxies seen with the present weights.

    The running means of training lag behind the weights. While the learning rate is high this can double the
    validation loss, so that a comparison of early epochs would compare the lag. Layers that are frozen keep theirs.

    Args:
        model: the network, on the device of `precision`; left in evaluation mode.
        split: the training galaxies.
        rows: (M,) int64, which of them to look at, unvaried.
        image_px: side of the images it sees, in pixels.
        precision: number format to compute in.

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
        norm.reset_running_stats()
        # None is torch's word for the plain mean over all batches.
        norm.momentum = None
        norm.train()
    try:
        with torch.inference_mode(), precision.autocast():
            for batch in iterate_batches(split, rows, batch_size=STATISTICS_BATCH):
                model(prepare(move(batch.images, precision.device), image_px=image_px))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
