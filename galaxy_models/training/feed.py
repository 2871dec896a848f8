"""What a training is fed with: an epoch's batches in their order, their images varied."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from galaxy_models.config import TrainConfig
from galaxy_models.data.augment import draw_variations, vary
from galaxy_models.data.batches import iterate_batches
from galaxy_models.data.order import Share, balanced_order, batch_slices, epoch_order
from galaxy_models.seeds import derive_seed
from galaxy_models.training.runtime import move
from galaxy_models.training.survey import SurveyData

# Values of the small batches that are varied at once on a CPU, 8 MB: after a training step the code that varies has
# left the cache, and every call pays for that: 0.4 ms a batch of 16 images, which then cost 13 us each.
_VARIED_VALUES = 2**21
# Bytes of stored images that are gathered at once, where they are larger than what the network sees.
_GATHERED_BYTES = 2**24


class Feed:
    """Gathers and varies a survey's training galaxies.

    Args:
        survey: has them.
        batch_size: galaxies of a batch.
        image_px: side of the images that the network sees, in pixels.
        device: where they are to be.
        share: which part of each batch is this process's.

    Attributes:
        lengths: galaxies of each batch of an epoch.
    """

    def __init__(
        self, survey: SurveyData, *, batch_size: int, image_px: int, device: torch.device, share: Share
    ) -> None:
        self._split, self._task = survey.split("train"), survey.task
        self._batch_size, self._image_px, self._device, self._share = batch_size, image_px, device, share
        self._mirror_order = survey.task.mirror_order if survey.task.mirror_pairs else None
        self.lengths = [part.stop - part.start for part in batch_slices(self._split.num_rows, batch_size)]

    def batches(self, settings: TrainConfig, *, epoch: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """An epoch's batches, or this process's parts of them.

        Args:
            settings: how to order and vary them, and the seed.
            epoch: epochs done before.

        Yields:
            Images, (B, 3, S, S) floats from 0 to 1; targets; and the whole batch's length.
        """
        generator = torch.Generator().manual_seed(derive_seed(settings.seed, "augment", epoch))
        # Drawn at once for all images of the epoch.
        drawn = draw_variations(self.lengths, config=settings.augment, image_px=self._image_px, generator=generator)
        variations, share = drawn.to(self._device), self._share
        together = 1
        if share.num == 1 and self._device.type == "cpu":
            seen, stored = (self._batch_size * 3 * px**2 for px in (self._image_px, self._split.px))
            together = max(1, min(_VARIED_VALUES // seen, _GATHERED_BYTES // stored))
        order = self._order(settings, epoch)
        batches = iterate_batches(self._split, order, batch_size=self._batch_size, share=share, num_together=together)
        for number, batch in enumerate(batches):
            images, targets = vary(
                move(batch.images, self._device),
                move(batch.targets, self._device),
                variations.of(batch.place),
                image_px=self._image_px,
                mirror_order=self._mirror_order,
            )
            whole = self.lengths[number * together : (number + 1) * together]
            own = whole if share.num == 1 else [len(images)]
            yield from zip(images.split(own), targets.split(own), whole, strict=True)

    def _order(self, settings: TrainConfig, epoch: int) -> npt.NDArray[np.int64]:
        if settings.class_balance == "sampling" and self._task.kind == "classes":
            return balanced_order(self._split.targets, seed=settings.seed, epoch=epoch)
        return epoch_order(self._split.num_rows, seed=settings.seed, epoch=epoch)
