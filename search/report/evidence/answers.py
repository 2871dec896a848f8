"""Reads what a retrained network answered for each test galaxy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from galaxy_models.errors import DataError
from galaxy_models.task import Task
from search.results import PREDICTIONS_NAME

Floats = NDArray[np.float32]

# Without its files a retraining counts as not done.
_REMEDY = ": remove its folder and --resume the run, which evaluates it again"


@dataclass(frozen=True)
class Answers:
    """One network's answers for the test galaxies, in the order of their ids.

    Attributes:
        ids: (N,) names of the galaxies, ascending.
        targets: (N,) class indices, or (N, A) vote fractions of the volunteers.
        outputs: (N, A) class probabilities or vote fractions.
        averaged: the same, averaged over the eight symmetries of the image; None where that was not done.
    """

    ids: NDArray[Any]
    targets: NDArray[Any]
    outputs: Floats
    averaged: Floats | None

    def same_galaxies(self, other: "Answers") -> bool:
        """Whether both answer for the same galaxies with the same targets."""
        return np.array_equal(self.ids, other.ids) and np.array_equal(self.targets, other.targets)


def read_answers(folder: Path, task: Task) -> Answers:
    """Read the answers for the test galaxies of one retraining.

    Args:
        folder: the retraining's folder.
        task: names the columns.

    Raises:
        DataError: there are none, or they are damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / PREDICTIONS_NAME
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected the retraining's answers{_REMEDY}")
    try:
        table = pq.read_table(path, filters=[("split", "==", "test")])
        return _answers(path, table, task)
    except (pa.ArrowException, OSError, KeyError) as error:
        words = " ".join(str(error).split())
        raise DataError(f"{path}: damaged ({words:.160}), expected the retraining's answers{_REMEDY}") from None


def _answers(path: Path, table: Any, task: Task) -> Answers:
    if not table.num_rows:
        raise DataError(f"{path}: found no row of the split 'test', expected one a test galaxy{_REMEDY}")
    ids = np.array(table.column("id").to_pylist(), dtype=object)
    order = np.argsort(ids.astype(str), kind="stable")
    if task.kind == "classes":
        targets = table.column("target").to_numpy().astype(np.int64)
        if targets.min() < 0 or targets.max() >= task.num_outputs:
            raise DataError(
                f"{path}: found classes from {targets.min()} to {targets.max()}, expected 0 to {task.num_outputs - 1}"
                f"{_REMEDY}"
            )
    else:
        targets = _matrix(table, "target_", task)
    outputs = _matrix(table, "p_", task)
    if not np.isfinite(outputs).all():
        raise DataError(f"{path}: found answers that are not finite, expected numbers{_REMEDY}")
    averaged = None
    if f"tta_{task.names[0]}" in table.column_names:
        averaged = _matrix(table, "tta_", task)[order]
        averaged = averaged if np.isfinite(averaged).all() else None
    return Answers(ids[order], targets[order], outputs[order], averaged)


def _matrix(table: Any, prefix: str, task: Task) -> Floats:
    columns = [table.column(f"{prefix}{name}").to_numpy() for name in task.names]
    return np.stack(columns, axis=1).astype(np.float32)
