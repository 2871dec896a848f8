"""The contract of a survey reader: what it names, which options it takes, and the galaxies it yields.

A reader finds galaxies and their labels; it decodes nothing. Each record carries an `ImageSource`, which is sent
to a worker process and loads the pixels there.
"""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from galaxy_models.errors import DataError
from galaxy_models.task import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ImageError(DataError):
    """An image that cannot be had; its message is the reason written to rejected.csv."""


@dataclass(frozen=True)
class LoadedImage:
    """One galaxy's pixels, ready for a shard.

    Attributes:
        pixels: (px, px, 3) uint8, RGB.
        digest: of the original image; two galaxies with the same digest are the same image. None: never the same.
    """

    pixels: "NDArray[np.uint8]"
    digest: bytes | None = None


class ImageSource(ABC):
    """Where one galaxy's image comes from. Pickled to worker processes, so it holds paths or seeds, no pixels.

    Attributes:
        preload: slow modules that `load` imports; worker processes are forked from one that has them already.
    """

    preload: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the image is, in a user's words: a path, an archive's member, a seed."""

    @abstractmethod
    def load(self, *, px: int, crop: float) -> LoadedImage:
        """Load the image at its final size.

        Args:
            px: side of the returned image, in pixels.
            crop: share of the image's shorter side to keep, about its centre, in (0, 1].

        Raises:
            ImageError: the image cannot be read; the galaxy is rejected with this reason.
        """


@dataclass(frozen=True)
class Record:
    """One galaxy of a survey.

    Attributes:
        id: unique in the survey; the split is a hash of it.
        target: the class's name, or (A,) float64 vote fractions in the order of the task's names.
        image: where its pixels come from.
        split: `train`, `val` or `test` where the survey itself says so, else None.
    """

    id: str
    target: "str | NDArray[np.float64]"
    image: ImageSource
    split: str | None = None


class Reader(ABC):
    """A survey in one format.

    A reader's module is imported to print `--help`: it imports nothing heavy (pyarrow, torch, galsim) at its top.

    Attributes:
        name: the subcommand that selects the reader.
        summary: one line for `--help`.
        default_crop: share of each image to keep where the user names none; 1.0 where the reader draws its own images.
        simulated: the galaxies are drawn, not observed.
        takes_recipe: its targets can be vote fractions, so that `--recipe` can make classes of them.
        default_recipe: the recipe applied where the user names none; None = keep the votes, as `--recipe none` does.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    default_crop: ClassVar[float] = 0.5
    simulated: ClassVar[bool] = False
    takes_recipe: ClassVar[bool] = False
    default_recipe: ClassVar[str | None] = None

    @classmethod
    @abstractmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare SOURCE (a positional argument named `source`) and the reader's own options."""

    @classmethod
    @abstractmethod
    def from_options(cls, options: argparse.Namespace) -> "Reader":
        """Open the survey that the parsed options describe, and check its labels.

        Raises:
            DataError: the source does not exist, is not of this format, or has labels that cannot be used.
        """

    @property
    @abstractmethod
    def survey(self) -> str:
        """The survey's name, where the user gives none."""

    @property
    @abstractmethod
    def task(self) -> Task:
        """What the survey asks: its classes in order, or its vote fractions; without mirror pairs."""

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield the galaxies, in the same order each time."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The options that shaped the records, as JSON values without absolute paths, for the manifest."""

    @property
    def paths(self) -> Iterable[Path]:
        """The folders and files that are read, resolved: the output must not touch them."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should be told before the conversion starts."""
        return ()
