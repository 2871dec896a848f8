"""Predictions of a survey's galaxies as a Parquet table, one row a galaxy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from galaxy_models.data.shards import Split
from galaxy_models.inference.answers import Answers
from galaxy_models.task import Task


def write_predictions(path: Path, task: Task, splits: Mapping[str, tuple[Split, Answers]]) -> None:
    """Write answers beside what was asked for, in one step.

    Columns: `split`, `id`, `target` (int64, the class's index) or `target_<name>` (float32) for each vote fraction,
    `p_<name>` (float32) for each class or vote fraction, and `tta_<name>` likewise, the mean over the eight symmetries,
    NaN where it was not asked for.

    Args:
        path: the file.
        task: what was answered, in the order of the answers' columns.
        splits: for each split's name its galaxies, with targets of this task, and their answers.
    """
    tables = [_table(name, task, split, answers) for name, (split, answers) in splits.items()]
    partial = path.with_name(f".{path.name}.partial")
    try:
        pq.write_table(pa.concat_tables(tables), partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _table(name: str, task: Task, split: Split, answers: Answers) -> pa.Table:
    columns: dict[str, Any] = {"split": pa.array([name] * split.num_rows, pa.string()), "id": split.ids}
    if task.kind == "classes":
        columns["target"] = pa.array(split.targets, pa.int64())
    else:
        columns |= _named("target_", task, split.targets)
    plain = answers.plain.numpy()
    averaged = np.full_like(plain, np.nan) if answers.averaged is None else answers.averaged.numpy()
    return pa.table({**columns, **_named("p_", task, plain), **_named("tta_", task, averaged)})


def _named(prefix: str, task: Task, values: Any) -> dict[str, Any]:
    return {f"{prefix}{name}": values[:, index] for index, name in enumerate(task.names)}
