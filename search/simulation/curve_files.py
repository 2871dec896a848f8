"""Recorded learning curves from a file: a run's own, or any table in Parquet or CSV."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from galaxy_models.task import Direction
from search.errors import RunError
from search.simulation.curves import USUAL, Columns, Curves, make_curves

if TYPE_CHECKING:
    import pandas as pd

TRIALS_FILE = "trials.parquet"
PARAM_PREFIX = "param_"
# A table with both is a run's own curves; its parameters are in the table of trials beside it.
_RUN_KEY = ("backbone", "trial")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_curves(
    path: Path,
    *,
    objective: str = "value",
    direction: Direction = "min",
    params: Sequence[str] = (),
    backbone: str = "",
    columns: Columns = USUAL,
) -> Curves:
    """Read learning curves from a Parquet file, or from a `.csv` or `.tsv` with a line of column names.

    Args:
        path: a run's `report/curves.parquet`, with `trials.parquet` beside it; or a table of configuration, epoch,
            seconds, objective and parameters.
        objective: the column that is optimised.
        direction: which way it is better.
        params: columns that are parameters; empty = for a run, those of its trials; for a table, all other columns.
        backbone: of a run with several backbones, the one to take.
        columns: what the others are called. A table with such a column for the configuration is not taken for a run's.

    Raises:
        RunError: the file cannot be read, lacks a column, or holds curves with holes, no number or no time.
    """
    table = _read_table(path)
    if set(_RUN_KEY) <= set(table.columns) and columns.config not in table.columns:
        table, params = _join_run(path, table, params, backbone)
        columns = columns._replace(config="trial")
    return make_curves(table, where=str(path), objective=objective, direction=direction, params=params, columns=columns)


def _read_table(path: Path) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow

    if not path.is_file():
        raise RunError(f"{path}: no such file, expected a table of learning curves, such as a run's curves.parquet")
    separator = _SEPARATORS.get(path.suffix.lower())
    try:
        # CSV at once: in pieces one column may have numbers in some and text in others.
        table = pd.read_csv(path, sep=separator, low_memory=False) if separator else pd.read_parquet(path)
    except (pyarrow.ArrowException, ValueError) as error:
        words, kind = " ".join(str(error).split()), "CSV" if separator else "Parquet"
        raise RunError(
            f"{path}: not a {kind} table ({words:.200}), expected a run's report/curves.parquet, another table in "
            "Parquet, or one in CSV whose name ends in .csv or .tsv"
        ) from error
    return table.rename(columns=str)


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
    return joined, wanted


def _trained(curves: "pd.DataFrame", trials: "pd.DataFrame") -> "pd.DataFrame":
    """The longest curve of each configuration of a run, up to the epoch before it diverged.

    A trial that took another's result was not trained, and one that was run again to the full length is there twice.
    """
    copied = trials.loc[trials["duplicate_of"].notna(), "trial"]
    unwanted = [*copied, *trials["promoted_from"].dropna()]
    if "branched_from" in trials.columns:
        # Its curve begins where another's was.
        unwanted += [*trials.loc[trials["branched_from"].notna(), "trial"]]
    curves = curves[~curves["trial"].isin(unwanted)].sort_values(["trial", "epoch"], kind="stable")
    return curves[curves["value"].notna().groupby(curves["trial"]).cummin()]
