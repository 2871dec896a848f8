"""Batches of galaxies as torch tensors, gathered in the training process from the mapped shards.

No worker processes: moving a batch between processes costs more than gathering it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from galaxy_models.data.order import WHOLE, Share, batch_slices, join_slices
from galaxy_models.data.shards import Split

# The batch in use and the one asked for next.
NUM_BUFFERS = 2


@dataclass(frozen=True)
class Batch:
    """One batch, or one process's share of it.

    Attributes:
        images: (B, 3, px, px) uint8, channels_last. It lies in a buffer that is used again: its content is valid
            until the second next batch is asked for, so keep what was computed from it or a clone.
        targets: (B,) int64 class indices, or (B, A) float32 vote fractions; the caller's own.
        rows: (B,) int64 row numbers in the split.
        place: where in the epoch's order these galaxies stand.
        num_images: length of the whole batch.
    """

    images: torch.Tensor
    targets: torch.Tensor
    rows: npt.NDArray[np.int64]
    place: slice
    num_images: int


def iterate_batches(
    split: Split, order: npt.NDArray[np.int64], *, batch_size: int, share: Share = WHOLE, num_together: int = 1
) -> Iterator[Batch]:
    """Gather the galaxies of an epoch, batch after batch.

    Args:
        split: where the galaxies lie.
        order: (N,) int64 row numbers in the order wanted.
        batch_size: largest size of a batch; see `batch_slices`.
        share: which part of each batch to gather; the whole, unless several processes share it.
        num_together: batches to gather at once and hand on as one, where they are not shared.

    Yields:
        The batches, with images in `NUM_BUFFERS` buffers used in turn.
    """
    assert num_together == 1 or share == WHOLE, "parts of neighbouring batches are no neighbours"
    slices = join_slices(batch_slices(len(order), batch_size), num_together)
    largest = max((share.largest(batch.stop - batch.start) for batch in slices), default=0)
    buffers = np.empty((NUM_BUFFERS, largest, split.px, split.px, 3), np.uint8)
    for number, batch in enumerate(slices):
        num_images = batch.stop - batch.start
        part = share.of(num_images)
        rows = order[batch][part]
        images = buffers[number % NUM_BUFFERS, : len(rows)]
        split.gather(rows, images)
        yield Batch(
            images=torch.from_numpy(images).permute(0, 3, 1, 2),
            targets=torch.from_numpy(split.targets[rows]),
            rows=rows,
            place=slice(batch.start + part.start, batch.start + part.stop),
            num_images=num_images,
        )
