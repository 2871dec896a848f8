"""In which order an epoch visits the galaxies: pure functions of the seed and the epoch."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from galaxy_models.seeds import derive_seed


@dataclass(frozen=True)
class Share:
    """What one of several processes takes of a row of things: a contiguous part, as long as the others' within one.

    Attributes:
        index: which process, from 0.
        num: how many there are.
    """

    index: int = 0
    num: int = 1

    def of(self, length: int) -> slice:
        """This process's part of so many things."""
        return slice(length * self.index // self.num, length * (self.index + 1) // self.num)

    def largest(self, length: int) -> int:
        """Length of the longest part that any process has of so many things."""
        return -(-length // self.num)


WHOLE = Share()


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


def join_slices(slices: list[slice], num: int) -> list[slice]:
    """Join so many neighbouring slices at a time into one; the last may be of fewer."""
    return [slice(slices[i].start, slices[i : i + num][-1].stop) for i in range(0, len(slices), num)]


def micro_slices(num_images: int, share: Share, *, size: int) -> list[slice]:
    """Cut one process's part of a batch into micro-batches; every process has as many of them, none is empty.

    Args:
        num_images: length of the whole batch, at least 1 for each process.
        share: the process's.
        size: most images at once, at least 1. A micro-batch has one more where single images were asked for and
            the processes' parts differ in length.

    Returns:
        Slices of the process's part, in order.
    """
    own = share.of(num_images)
    num_parts = min(-(-share.largest(num_images) // size), num_images // share.num)
    return [Share(index, num_parts).of(own.stop - own.start) for index in range(num_parts)]
