"""Images come back in order from worker processes, few at a time, and a dead worker is one message."""

import os
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from galaxy_models.data.pipeline import load_images
from galaxy_models.data.readers.base import ImageError, ImageSource, LoadedImage
from galaxy_models.data.readers.images import FileImage
from galaxy_models.errors import MachineError


@dataclass(frozen=True)
class NumberedImage(ImageSource):
    """Its number as pixels; multiples of 7 cannot be read, and early ones take longest."""

    # The first conversion of a process decides what its workers have loaded: leave that as other tests need it.
    preload: ClassVar[tuple[str, ...]] = FileImage.preload

    number: int

    @property
    def location(self) -> str:
        return str(self.number)

    def load(self, *, px: int, crop: float) -> LoadedImage:
        time.sleep(0.02 / (1 + self.number))
        if self.number % 7 == 0:
            raise ImageError(f"{self.number} is unlucky")
        return LoadedImage(np.full((2, 2, 3), self.number, np.uint8), bytes([self.number]))


@dataclass(frozen=True)
class DeadlyImage(NumberedImage):
    """An image whose decoder crashes."""

    def load(self, *, px: int, crop: float) -> LoadedImage:
        os._exit(1)


# At 1024 px a chunk is one image, so that 40 of them outnumber those in flight.
@pytest.mark.parametrize(("num_workers", "px"), [(1, 32), (2, 32), (3, 1024)])
def test_images_come_in_order_with_failures_in_their_places(num_workers: int, px: int) -> None:
    sources = [NumberedImage(number) for number in range(40)]
    outcomes = list(load_images(sources, px=px, crop=1.0, num_workers=num_workers))
    assert [index for index, _ in outcomes] == list(range(40))
    for index, outcome in outcomes:
        if index % 7:
            assert isinstance(outcome, LoadedImage)
            assert (outcome.pixels == index).all()
        else:
            assert isinstance(outcome, ImageError)
            assert str(outcome) == f"{index} is unlucky"


def test_a_worker_that_dies() -> None:
    sources = [NumberedImage(1), DeadlyImage(2)]
    with pytest.raises(MachineError, match="a process that loads images died"):
        list(load_images(sources, px=1024, crop=1.0, num_workers=2))
