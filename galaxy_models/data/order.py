"""In which order an epoch visits the galaxies: pure functions of the seed and the epoch."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from galaxy_models.seeds import derive_seed


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Order in which an epoch visits every galaxy exactly once.

    Args:
        num_rows: galaxies in the split.
        seed: the configuration's seed.
        epoch: the epoch's number; each has its own order.

    Returns:
        (N,) int64, a permutation of 0 to N - 1.
    """
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(num_rows).astype(np.int64, copy=False)


def balanced_order(labels: npt.NDArray[np.int64], *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Draw an epoch with replacement so that every class that occurs is equally likely.

    Args:
        labels: (N,) int64 class of each galaxy.
        seed: the configuration's seed.
        epoch: the epoch's number; each has its own draw.

    Returns:
        (N,) int64 row numbers; a galaxy's chance is the inverse of its class's frequency.
    """
    if len(labels) == 0:
        return np.empty(0, np.int64)
    chance = 1.0 / np.bincount(labels)[labels]
    generator = np.random.default_rng(derive_seed(seed, "balanced order", epoch))
    return generator.choice(len(labels), size=len(labels), p=chance / chance.sum()).astype(np.int64, copy=False)


def batch_slices(num_rows: int, batch_size: int) -> list[slice]:
    """Cut an epoch into as few batches as fit, of nearly equal size, so that no batch is left tiny.

    A last batch of one galaxy would upset batch normalisation, and dropping it would lose galaxies.

    Args:
        num_rows: galaxies in the epoch.
        batch_size: largest size of a batch, at least 1.

    Returns:
        ceil(num_rows / batch_size) slices in order, whose lengths differ by at most one.
    """
    num_batches = -(-num_rows // batch_size)
    ends = [num_rows * i // num_batches for i in range(num_batches + 1)] if num_batches else []
    return [slice(start, end) for start, end in pairwise(ends)]
