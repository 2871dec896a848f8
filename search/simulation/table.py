"""A finite table of configurations as a search space.

Each column is a parameter. Numbers are drawn from the range of the column, on a logarithmic scale where all are
positive and span more than two decades; anything else is a choice among the values that occur. A column that is
empty for some configurations is asked for only where it exists: after the categorical column whose value decides
that, or else after a choice of its own, `branch` (`branch_` where a column is called so).

A suggestion stands for the nearest configuration among those with the same parameters: numbers differ by the square
of their distance on the scale of the range, choices by 0 or 1. One that stood for another suggestion before is passed
over, unless it is met exactly: two draws from a continuous range never train the same network.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.simulation.curves import Curves

if TYPE_CHECKING:
    import optuna
    import pandas as pd

# Wider ranges of positive numbers are searched by their logarithm.
LINEAR_DECADES = 2.0
BRANCH = "branch"


@dataclass(frozen=True)
class Axis:
    """One parameter.

    Attributes:
        name: the parameter's.
        kind: "float", "int" or "choice".
        low: least value; of numbers.
        high: greatest value; of numbers.
        log: searched by its logarithm.
        choices: the values; of a choice.
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: "optuna.Trial") -> Any:
        """Ask for a value."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.choices)
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    @property
    def distribution(self) -> "optuna.distributions.BaseDistribution":
        """Where it is drawn from, as Optuna says it."""
        from optuna import distributions

        if self.kind == "choice":
            return distributions.CategoricalDistribution(self.choices)
        if self.kind == "int":
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)

    def place(self, value: Any) -> float:
        """Where a value lies: from 0 to 1 on the scale of a range, or the number of a choice; NaN if missing."""
        if value is None:
            return math.nan
        if self.kind == "choice":
            return float(self.choices.index(value))
        if self.high == self.low:
            return 0.0
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))


def make_axis(column: "pd.Series[Any]") -> Axis:
    """Find out what kind of parameter a column is."""
    import pandas as pd

    name, values = str(column.name), column.dropna()
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        return Axis(name, "choice", choices=tuple(sorted({_plain(value) for value in values}, key=str)))
    numbers = values.to_numpy(float)
    low, high = float(numbers.min()), float(numbers.max())
    # A column of whole numbers with gaps is read back as floats.
    whole = pd.api.types.is_integer_dtype(values) or (len(values) < len(column) and bool((numbers % 1 == 0).all()))
    log = low > 0 and math.log10(high / low) > LINEAR_DECADES
    return Axis(name, "int" if whole else "float", low, high, log)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class RecordedConfig:
    """A suggestion, with the fields of a TrainConfig that a ledger reads or sets.

    Attributes:
        row: the recorded configuration that it stands for.
        values: what was suggested: where all rows are used, one may stand for several networks.
        epochs: epochs of a trial that is not stopped.
        seed: unused; every trial of a configuration shows the recorded curve.
        image_px: unknown.
    """

    row: int
    values: dict[str, Any]
    epochs: int = 0
    seed: int = 0
    image_px: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain types."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class TableSpace:
    """A search space whose configurations are the rows of a table; stands in for a space file.

    Attributes:
        axes: the parameters by name, in the order in which they are asked for.
        branches: which parameters occur together, by the value of `branch_axis`.
        branch_axis: the choice that decides which parameters there are; None = all have the same.
        places: (C, P) where each configuration lies on each axis; NaN where it lacks the parameter.
        used: (C,) whether a suggestion of this search stood for the configuration.
        taken: the configuration that each suggestion stood for.
        name: of its study.
        named: configurations that run first: none.
        path: where it came from: nowhere.
        digest: of a space file's text: none.
    """

    axes: Mapping[str, Axis]
    branches: Mapping[Any, tuple[str, ...]]
    branch_axis: Axis | None
    places: np.ndarray
    used: np.ndarray
    taken: dict[tuple[Any, ...], int] = field(default_factory=dict)
    name: str = "table"
    named: tuple[dict[str, Any], ...] = ()
    path: Path = Path("table")
    digest: str = ""

    @classmethod
    def of(cls, curves: Curves) -> "TableSpace":
        """Make the space of a table's configurations."""
        params = curves.params
        axes = {str(name): make_axis(params[name]) for name in params.columns}
        branch_axis, keys = _branches(params, axes)
        present = params.notna()
        branches = {key: tuple(name for name in axes if present[name].iloc[row]) for row, key in enumerate(keys)}
        places = np.array([_places(params[name], axis) for name, axis in axes.items()]).T
        return cls(axes, branches, branch_axis, places, np.zeros(len(places), bool))

    @property
    def distributions(self) -> "dict[str, optuna.distributions.BaseDistribution]":
        """Where each parameter is drawn from."""
        axes = [*self.axes.values(), *([self.branch_axis] if self.branch_axis else [])]
        return {axis.name: axis.distribution for axis in axes}

    def suggest(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Ask an Optuna trial for values of a table's parameters."""
        key = self.branch_axis.suggest(trial) if self.branch_axis else None
        return {name: self.axes[name].suggest(trial) for name in self.branches[key]}

    def draw(self, num: int, *, seed: int) -> list[dict[str, Any]]:
        """Parameters drawn at random, as a sampler does before it has learned anything.

        Args:
            num: draws.
            seed: of the draws.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        trials = [study.ask() for _ in range(num)]
        for trial in trials:
            self.suggest(trial)
        return [trial.params for trial in trials]

    def nearest(self, values: Mapping[str, Any]) -> int:
        """The recorded configuration that a suggestion stands for; see the top of this file."""
        key = tuple(sorted(values.items()))
        if key not in self.taken:
            distance = self._distances(values)
            if not self.used.all():
                distance[self.used & (distance > 0)] = np.inf
            self.taken[key] = int(np.argmin(distance))
            self.used[self.taken[key]] = True
        return self.taken[key]

    def _distances(self, values: Mapping[str, Any]) -> np.ndarray:
        """(C,) from each configuration; infinite where the parameters differ."""
        distance = np.zeros(len(self.places))
        for number, axis in enumerate(self.axes.values()):
            place = axis.place(values.get(axis.name))
            column = self.places[:, number]
            if math.isnan(place):
                distance += np.where(np.isnan(column), 0.0, np.inf)
            elif axis.kind == "choice":
                distance += np.where(np.isnan(column), np.inf, column != place)
            else:
                distance += np.where(np.isnan(column), np.inf, (column - place) ** 2)
        return distance

    def fresh(self) -> "TableSpace":
        """The same space for another search."""
        return replace(self, used=np.zeros_like(self.used), taken={})

    def config(self, trial: "optuna.Trial") -> RecordedConfig:
        """Ask for one configuration, as a ledger does."""
        values = self.suggest(trial)
        return RecordedConfig(self.nearest(values), values)


def _places(column: "pd.Series[Any]", axis: Axis) -> list[float]:
    known = column.notna()
    return [axis.place(_plain(value) if there else None) for value, there in zip(column, known, strict=True)]


def _branches(params: "pd.DataFrame", axes: Mapping[str, Axis]) -> tuple[Axis | None, Sequence[Any]]:
    """The choice that decides which parameters a configuration has, and its value for each configuration."""
    patterns = [tuple(row) for row in params.notna().to_numpy()]
    kinds = sorted(set(patterns), reverse=True)
    if len(kinds) == 1:
        return None, [None] * len(patterns)
    for name, axis in axes.items():
        if axis.kind != "choice" or params[name].isna().any():
            continue
        values = [_plain(value) for value in params[name]]
        if len(set(zip(values, patterns, strict=True))) == len(set(values)):
            return axis, values
    own = BRANCH
    while own in axes:
        own += "_"
    return Axis(own, "choice", choices=tuple(range(len(kinds)))), [kinds.index(pattern) for pattern in patterns]
