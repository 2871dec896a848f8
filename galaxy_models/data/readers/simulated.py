"""The simulated sky: as many galaxies as are asked for, drawn from a seed, with the votes of simulated volunteers."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from galaxy_models.data.readers.base import ImageSource, LoadedImage, Reader, Record
from galaxy_models.errors import DataError
from galaxy_models.task import Task

_DEFAULT_NUM_GALAXIES = 2000


@dataclass(frozen=True)
class SimulatedImage(ImageSource):
    """A picture that is taken when it is asked for.

    Attributes:
        seed: of the sky.
        index: the galaxy's number in it.
    """

    preload: ClassVar[tuple[str, ...]] = ("galaxy_models.data.sky.camera",)

    seed: int
    index: int

    @property
    def location(self) -> str:
        """The seed and the galaxy's number."""
        return f"simulated sky, seed {self.seed}, galaxy {self.index}"

    def load(self, *, px: int, crop: float) -> LoadedImage:
        """Draw the galaxy; see the contract."""
        from galaxy_models.data.sky.camera import photograph
        from galaxy_models.data.sky.galaxies import draw_galaxy

        return LoadedImage(photograph(draw_galaxy(self.seed, self.index), px=px, crop=crop))


class SimulatedReader(Reader):
    """Drawn galaxies and their 37 vote fractions.

    The classes are those of the conditional recipe unless another is named: the cumulative one, being stricter, leaves
    out twice as many galaxies and keeps fewer than half of the cigars.
    """

    name = "simulated"
    summary = "a simulated sky, drawn with GalSim and classified by simulated volunteers"
    default_crop = 1.0
    simulated = True
    takes_recipe = True
    default_recipe = "five_class_conditional"

    def __init__(self, num_galaxies: int, *, seed: int = 0) -> None:
        if num_galaxies < 1:
            raise DataError(f"simulated sky: got {num_galaxies} galaxies, expected at least 1: ask for more")
        if seed < 0:
            raise DataError(f"--seed: got {seed}, expected a whole number from 0")
        self._num_galaxies = num_galaxies
        self._seed = seed

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the number of galaxies and the seed."""
        parser.add_argument(
            "source",
            metavar="NUM_GALAXIES",
            type=int,
            nargs="?",
            default=_DEFAULT_NUM_GALAXIES,
            help=f"galaxies to draw; the recipe leaves some of them out (default: {_DEFAULT_NUM_GALAXIES})",
        )
        parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the sky (default: 0)")

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> "SimulatedReader":
        """Choose the sky; see the contract."""
        return cls(options.source, seed=options.seed)

    @property
    def survey(self) -> str:
        """`sky-` and the seed."""
        return f"sky-{self._seed}"

    @property
    def task(self) -> Task:
        """The 37 vote fractions."""
        from galaxy_models.morphology.tree import GZ2

        return Task(kind="votes", names=GZ2.columns)

    def records(self) -> Iterator[Record]:
        """Yield galaxies 0, 1, 2 and on: a galaxy is the same however many are asked for."""
        from galaxy_models.data.sky.galaxies import draw_galaxy
        from galaxy_models.data.sky.volunteers import vote_fractions

        for index in range(self._num_galaxies):
            votes = vote_fractions(draw_galaxy(self._seed, index))
            image = SimulatedImage(self._seed, index)
            yield Record(id=f"sim-{self._seed}-{index:06d}", target=votes, image=image)

    def describe(self) -> dict[str, Any]:
        """The number of galaxies and the seed."""
        return {"num_galaxies": self._num_galaxies, "seed": self._seed}
