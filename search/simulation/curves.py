"""Recorded learning curves: read from Parquet, checked, one a configuration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from galaxy_models.task import Direction
from search.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

TRIALS_FILE = "trials.parquet"
PARAM_PREFIX = "param_"
_KEY = ("config", "epoch", "seconds")
# A row with one of these is a run's own curves; its parameters are in the table of trials beside it.
_RUN_KEY = ("backbone", "trial")


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


def read_curves(
    path: Path,
    *,
    objective: str = "value",
    direction: Direction = "min",
    params: Sequence[str] = (),
    backbone: str = "",
) -> Curves:
    """Read learning curves from a Parquet file.

    Args:
        path: a run's `report/curves.parquet`, with `trials.parquet` beside it; or a table with the columns
            `config` (any id), `epoch` (from 1), `seconds`, the objective, and parameters.
        objective: the column that is optimised.
        direction: which way it is better.
        params: columns that are parameters; empty = for a run, those of its trials; for a table, all other columns.
        backbone: of a run with several backbones, the one to take.

    Raises:
        RunError: the file cannot be read, lacks a column, or holds curves with holes, no number or no time.
    """
    table = _read_table(path)
    if set(_RUN_KEY) <= set(table.columns):
        table, params = _join_run(path, table, params, backbone)
    return make_curves(table, where=str(path), objective=objective, direction=direction, params=params)


def _read_table(path: Path) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow

    if not path.is_file():
        raise RunError(f"{path}: no such file, expected a Parquet table of learning curves, such as a run's curves")
    try:
        return pd.read_parquet(path)
    except (pyarrow.ArrowException, ValueError) as error:
        words = " ".join(str(error).split())
        raise RunError(f"{path}: not a Parquet table ({words:.200}): name a run's report/curves.parquet") from error


def _join_run(
    path: Path, curves: "pd.DataFrame", params: Sequence[str], backbone: str
) -> "tuple[pd.DataFrame, list[str]]":
    """A run's curves with its trials' parameters, of one backbone."""
    backbones = sorted(curves["backbone"].unique())
    if not backbone and len(backbones) > 1:
        raise RunError(f"{path}: has the backbones {', '.join(backbones)}, expected one: choose it with --backbone")
    backbone = backbone or (backbones[0] if backbones else "")
    if backbone not in backbones:
        raise RunError(f"--backbone {backbone}: {path} has no such backbone, expected one of {', '.join(backbones)}")
    trials = _read_table(path.with_name(TRIALS_FILE))
    lacking = [name for name in (*_RUN_KEY, "duplicate_of", "promoted_from") if name not in trials.columns]
    if lacking:
        raise RunError(f"{path.with_name(TRIALS_FILE)}: no column {lacking[0]!r}, expected a run's table of trials")
    known = [str(name) for name in trials.columns if str(name).startswith(PARAM_PREFIX)]
    wanted = [name if name in known else PARAM_PREFIX + name for name in params] or known
    for name in wanted:
        if name not in known:
            raise RunError(f"--params: {path.with_name(TRIALS_FILE)} has no column {name!r}, expected some of {known}")
    trials = trials[trials["backbone"] == backbone]
    # Parameters of other backbones are columns too, empty for this one.
    wanted = [name for name in wanted if trials[name].notna().any()]
    curves = _trained(curves[curves["backbone"] == backbone], trials)
    joined = curves.drop(columns=["backbone", *(name for name in wanted if name in curves.columns)]).merge(
        trials[["trial", *wanted]], on="trial", how="left"
    )
    return joined.rename(columns={"trial": "config"}), wanted


def _trained(curves: "pd.DataFrame", trials: "pd.DataFrame") -> "pd.DataFrame":
    """The longest curve of each configuration of a run, up to the epoch before it diverged.

    A trial that took another's result was not trained, and one that was run again to the full length is there twice.
    """
    copied = trials.loc[trials["duplicate_of"].notna(), "trial"]
    unwanted = [*copied, *trials["promoted_from"].dropna()]
    curves = curves[~curves["trial"].isin(unwanted)].sort_values(["trial", "epoch"], kind="stable")
    return curves[curves["value"].notna().groupby(curves["trial"]).cummin()]


def make_curves(
    table: "pd.DataFrame", *, where: str, objective: str, direction: Direction, params: Sequence[str]
) -> Curves:
    """Check a table and take it apart into curves; see `read_curves`.

    Args:
        table: a row a configuration and epoch.
        where: what to call the table in messages.
        objective: the column that is optimised.
        direction: which way it is better.
        params: columns that are parameters; empty = all but the others.
    """
    params = list(params) or [str(name) for name in table.columns if name not in (*_KEY, objective, "value")]
    columns = ", ".join(map(str, table.columns))
    for name in (*_KEY, objective, *params):
        if name not in table.columns:
            raise RunError(
                f"{where}: no column {name!r} among {columns}, expected config, epoch, seconds, {objective} and "
                "parameters: name the objective with --objective and the parameters with --params"
            )
    if table.empty:
        raise RunError(f"{where}: has no row, expected a learning curve for each configuration")
    if not params:
        raise RunError(f"{where}: no column is left for parameters, expected at least one: see --params")
    _check_numbers(table, where, objective)
    table = table.sort_values(["config", "epoch"], kind="stable")
    _check_epochs(table, where)
    _check_params(table, where, params)
    first = table["epoch"].to_numpy(float) == 1
    starts = np.flatnonzero(first)[1:]
    return Curves(
        ids=[str(name) for name in table["config"][first]],
        values=np.split(table[objective].to_numpy(float), starts),
        seconds=np.split(table["seconds"].to_numpy(float), starts),
        params=table.loc[first, list(params)].reset_index(drop=True),
        direction=direction,
    )


def _check_numbers(table: "pd.DataFrame", where: str, objective: str) -> None:
    import pandas as pd

    if table["config"].isna().any():
        raise RunError(f"{where}: a row has no config, expected an id in every row")
    for name in ("epoch", "seconds", objective):
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise RunError(f"{where}: column {name!r} is of type {table[name].dtype}, expected numbers")
        bad = ~np.isfinite(table[name].to_numpy(float, na_value=math.nan))
        if bad.any():
            row = table[bad].iloc[0]
            raise RunError(
                f"{where}: configuration {row['config']}, epoch {row['epoch']}: {name} is {row[name]}, expected a "
                f"finite number ({int(bad.sum())} such rows): leave the rows out, or end the curves before them"
            )
    if (table["seconds"] <= 0).any():
        row = table[table["seconds"] <= 0].iloc[0]
        raise RunError(
            f"{where}: configuration {row['config']}, epoch {row['epoch']}: seconds is {row['seconds']}, "
            "expected more than 0"
        )


def _check_epochs(table: "pd.DataFrame", where: str) -> None:
    expected = table.groupby("config", sort=False).cumcount().to_numpy() + 1
    wrong = np.flatnonzero(table["epoch"].to_numpy(float) != expected)
    if len(wrong):
        row = table.iloc[wrong[0]]
        raise RunError(
            f"{where}: configuration {row['config']}: found epoch {row['epoch']:g}, expected {expected[wrong[0]]}: "
            "epochs run from 1 upwards, each once"
        )


def _check_params(table: "pd.DataFrame", where: str, params: Sequence[str]) -> None:
    groups = table.groupby("config", sort=False)
    for name in params:
        changes = groups[name].nunique(dropna=False) > 1
        if changes.any():
            raise RunError(
                f"{where}: configuration {changes.index[changes][0]}: {name} changes, expected one value: "
                "leave out what is no parameter by naming the others with --params"
            )
