"""Predictions of a survey's galaxies as a Parquet table, one row a galaxy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from galaxy_models.inference.answers import Answers
from galaxy_models.task import Task


@dataclass(frozen=True)
class Predicted:
    """The galaxies of a split, what is true of them, and what a network answers.

    Attributes:
        ids: N names.
        targets: (N,) int64 class indices, or (N, A) float32 vote fractions, in the order of the network's task.
        answers: the network's, on the processor.
    """

    ids: list[str]
    targets: npt.NDArray[Any]
    answers: Answers


def write_predictions(path: Path, task: Task, splits: Mapping[str, Predicted]) -> None:
    """Write answers beside what was asked for, in one step.

    Columns: `split`, `id`, `target` (int64, the class's index) or `target_<name>` (float32) for each vote fraction,
    `p_<name>` (float32) for each class or vote fraction, and `tta_<name>` likewise, the mean over the eight symmetries,
    NaN where it was not asked for.

    Args:
        path: the file.
        task: what was answered, in the order of the answers' columns.
        splits: the galaxies of each split, by its name.
    """
    tables = [_table(name, task, predicted) for name, predicted in splits.items()]
    partial = path.with_name(f".{path.name}.partial")
    try:
        pq.write_table(pa.concat_tables(tables), partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _table(name: str, task: Task, predicted: Predicted) -> pa.Table:
    ids, answers = predicted.ids, predicted.answers
    columns: dict[str, Any] = {"split": pa.array([name] * len(ids), pa.string()), "id": pa.array(ids, pa.string())}
    if task.kind == "classes":
        columns["target"] = pa.array(predicted.targets, pa.int64())
    else:
        columns |= named_columns("target_", task, predicted.targets)
    plain = answers.plain.numpy()
    averaged = np.full_like(plain, np.nan) if answers.averaged is None else answers.averaged.numpy()
    return pa.table({**columns, **named_columns("p_", task, plain), **named_columns("tta_", task, averaged)})


def named_columns(prefix: str, task: Task, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """The columns of (N, A) values by the task's names, each with a prefix."""
    return {f"{prefix}{name}": values[:, index] for index, name in enumerate(task.names)}
