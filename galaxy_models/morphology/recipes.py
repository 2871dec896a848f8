"""Named recipes that turn the 37 vote fractions of a galaxy into one class.

Source:
    Thresholds of Willett et al. 2013, MNRAS 435, 2835, table 3 (at least 20 votes), combined into five classes
    as is common since Zhu et al. 2019 (preprint: Dai & Tong 2018, arXiv 1807.10406).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxy_models.morphology.tree import GZ2

NO_CLASS = -1


@dataclass(frozen=True)
class Recipe:
    """Rules that name a galaxy's class from its vote fractions.

    Attributes:
        name: what `--recipe` calls it.
        rules: for each class, the columns its rule reads and the least fraction in each. Where two rules are
            met the earlier wins.
        conditional: whether the fractions are divided by their parents' first.
    """

    name: str
    rules: tuple[tuple[str, dict[str, float]], ...]
    conditional: bool

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""
        return tuple(name for name, _ in self.rules)

    def apply(self, fractions: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the class of each galaxy.

        Args:
            fractions: (N, 37) cumulative vote fractions in the order of `GZ2.columns`.

        Returns:
            (N,) class numbers; -1 for a galaxy that meets no rule. A rule that reads a NaN, or a conditional
            fraction of a question nobody was asked, is not met.
        """
        if self.conditional:
            fractions = GZ2.conditional(fractions)
        classes = np.full(len(fractions), NO_CLASS, dtype=np.int64)
        for number, (_, thresholds) in reversed(list(enumerate(self.rules))):
            met = np.ones(len(fractions), dtype=bool)
            for column, least in thresholds.items():
                met &= fractions[:, GZ2.columns.index(column)] >= least
            classes[met] = number
        return classes


# Smooth first: its rule asks for more votes (0.469) than that of galaxies with features (0.430).
_FIVE_CLASSES = (
    ("round", {"Class1.1": 0.469, "Class7.1": 0.5}),
    ("in_between", {"Class1.1": 0.469, "Class7.2": 0.5}),
    ("cigar", {"Class1.1": 0.469, "Class7.3": 0.5}),
    ("edge_on", {"Class1.2": 0.430, "Class2.1": 0.602}),
    ("spiral", {"Class1.2": 0.430, "Class2.2": 0.715, "Class4.1": 0.619}),
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("five_class", _FIVE_CLASSES, conditional=False),
        Recipe("five_class_conditional", _FIVE_CLASSES, conditional=True),
    )
}
