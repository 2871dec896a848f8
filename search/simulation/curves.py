"""Recorded learning curves: a table, checked and taken apart, one a configuration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from galaxy_models.task import Direction
from search.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

_LEAVE_OUT = "leave out what is no parameter by naming the others with --params"


class Columns(NamedTuple):
    """What the columns are called that are neither objective nor parameters.

    Attributes:
        config: any id of the configuration.
        epoch: from 1.
        seconds: that the epoch took.
    """

    config: str = "config"
    epoch: str = "epoch"
    seconds: str = "seconds"


USUAL = Columns()


@dataclass(frozen=True, eq=False)
class Curves:
    """What training each of C configurations showed.

    Attributes:
        ids: each configuration's name, for messages.
        values: for each configuration, (E,) the objective after epochs 1 to E.
        seconds: for each configuration, (E,) the time that each epoch took, above 0.
        params: (C, P) parameters, a column each; missing where a configuration has no such parameter.
        direction: which way the objective is better.
    """

    ids: Sequence[str]
    values: Sequence[np.ndarray]
    seconds: Sequence[np.ndarray]
    params: "pd.DataFrame"
    direction: Direction

    def best(self, max_epochs: int) -> float:
        """The best value that any configuration shows within so many epochs."""
        return self._extreme(max_epochs, min if self.direction == "min" else max)

    def worst(self, max_epochs: int) -> float:
        """The worst value that any configuration shows within so many epochs."""
        return self._extreme(max_epochs, max if self.direction == "min" else min)

    def _extreme(self, max_epochs: int, choose: Any) -> float:
        return float(choose(choose(values[:max_epochs]) for values in self.values))

    def easy_target(self, max_epochs: int, share: float) -> float:
        """The value that this share of the configurations reach within so many epochs."""
        sign = 1.0 if self.direction == "min" else -1.0
        reached = sorted(float(min(sign * values[:max_epochs])) for values in self.values)
        return sign * reached[math.ceil(share * len(reached)) - 1]


def make_curves(
    table: "pd.DataFrame",
    *,
    where: str,
    objective: str,
    direction: Direction,
    params: Sequence[str],
    columns: Columns = USUAL,
) -> Curves:
    """Check a table and take it apart into curves; see `read_curves`.

    Args:
        table: a row a configuration and epoch.
        where: what to call the table in messages.
        objective: the column that is optimised.
        direction: which way it is better.
        params: columns that are parameters; empty = all but the others. One without any value is none.
        columns: what the others are called.

    Raises:
        RunError: the table lacks a column, or holds curves with holes, no number or no time, or parameters that are
            neither numbers nor words.
    """
    params = list(params) or [str(name) for name in table.columns if name not in (*columns, objective, "value")]
    _check_columns(table, where, (*columns, objective, *params))
    params = [name for name in params if table[name].notna().any()]
    if not params:
        raise RunError(f"{where}: no column with values is left for parameters, expected at least one: see --params")
    _check_numbers(table, where, columns, objective)
    table = table.sort_values([columns.config, columns.epoch], kind="stable")
    _check_epochs(table, where, columns)
    _check_params(table, where, columns, params)
    first = table[columns.epoch].to_numpy(float) == 1
    starts = np.flatnonzero(first)[1:]
    return Curves(
        ids=[str(name) for name in table[columns.config][first]],
        values=np.split(table[objective].to_numpy(float), starts),
        seconds=np.split(table[columns.seconds].to_numpy(float), starts),
        params=table.loc[first, params].reset_index(drop=True),
        direction=direction,
    )


def _check_columns(table: "pd.DataFrame", where: str, wanted: Sequence[str]) -> None:
    config, epoch, seconds, objective = wanted[:4]
    if len({config, epoch, seconds}) < 3:
        raise RunError(
            f"{where}: configuration {config!r}, epoch {epoch!r} and seconds {seconds!r}: found one column for two of "
            "them, expected three: see --config-column, --epoch-column and --seconds-column"
        )
    lacking = next((name for name in wanted if name not in table.columns), None)
    if lacking is not None:
        raise RunError(
            f"{where}: no column {lacking!r} among {', '.join(map(str, table.columns))}, expected {config}, {epoch}, "
            f"{seconds}, {objective} and parameters: name the objective with --objective, the parameters with "
            "--params, and the others with --config-column, --epoch-column and --seconds-column"
        )
    if table.empty:
        raise RunError(f"{where}: has no row, expected a learning curve for each configuration")
    _check_cells(table[config], where, "give each configuration a number or a name")


def _check_numbers(table: "pd.DataFrame", where: str, columns: Columns, objective: str) -> None:
    import pandas as pd

    if table[columns.config].isna().any():
        raise RunError(f"{where}: a row has no {columns.config}, expected an id in every row")
    for name in (columns.epoch, columns.seconds, objective):
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise RunError(f"{where}: column {name!r} is of type {table[name].dtype}, expected numbers")
        bad = ~_finite(table[name])
        if bad.any():
            raise RunError(
                f"{where}: {_place(table, columns, bad)}: {name} is {table[name][bad].iloc[0]}, expected a finite "
                f"number ({int(bad.sum())} such rows): leave the rows out, or end the curves before them"
            )
    early = (table[columns.seconds] <= 0).to_numpy(bool)
    if early.any():
        raise RunError(
            f"{where}: {_place(table, columns, early)}: {columns.seconds} is {table[columns.seconds][early].iloc[0]}, "
            "expected more than 0: give each epoch the time that it took"
        )


def _finite(column: "pd.Series[Any]") -> np.ndarray:
    return np.isfinite(column.to_numpy(float, na_value=math.nan))


def _place(table: "pd.DataFrame", columns: Columns, rows: np.ndarray) -> str:
    """The first of some rows in words."""
    config, epoch = (table[name][rows].iloc[0] for name in (columns.config, columns.epoch))
    return f"configuration {config}, epoch {epoch}"


def _check_epochs(table: "pd.DataFrame", where: str, columns: Columns) -> None:
    expected = table.groupby(columns.config, sort=False).cumcount().to_numpy() + 1
    wrong = np.flatnonzero(table[columns.epoch].to_numpy(float) != expected)
    if len(wrong):
        row = table.iloc[wrong[0]]
        raise RunError(
            f"{where}: configuration {row[columns.config]}: found epoch {row[columns.epoch]:g}, expected "
            f"{expected[wrong[0]]}: epochs run from 1 upwards, each once"
        )


def _check_params(table: "pd.DataFrame", where: str, columns: Columns, params: Sequence[str]) -> None:
    import pandas as pd

    groups = table.groupby(columns.config, sort=False)
    for name in params:
        _check_cells(table[name], where, _LEAVE_OUT)
        if pd.api.types.is_numeric_dtype(table[name]):
            endless = ~_finite(table[name]) & table[name].notna().to_numpy()
            if endless.any():
                raise RunError(
                    f"{where}: {_place(table, columns, endless)}: {name} is {table[name][endless].iloc[0]}, expected a "
                    f"finite number, or nothing where there is no such parameter: mend the column, or {_LEAVE_OUT}"
                )
        changes = groups[name].nunique(dropna=False) > 1
        if changes.any():
            raise RunError(
                f"{where}: configuration {changes.index[changes][0]}: {name} changes, expected one value: {_LEAVE_OUT}"
            )


def _check_cells(column: "pd.Series[Any]", where: str, remedy: str) -> None:
    """Refuse lists, dates and whatever else a file may hold in a cell."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return
    odd = [cell for cell in column.dropna().astype(object) if not isinstance(cell, str | bool | int | float | np.bool)]
    if odd:
        raise RunError(
            f"{where}: column {column.name!r} holds {str(odd[0])!r:.60} of type {type(odd[0]).__name__}, expected "
            f"numbers, words or truth values: {remedy}"
        )
