"""A table of predictions, written as they come, which appears when it is complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from galaxy_models.inference.ensemble import Opinion
from galaxy_models.inference.images import Rows
from galaxy_models.task import Task

# Rows of a row group: as many as are kept in memory at a time.
_GROUP_ROWS = 10_000


class PredictionTable:
    """A Parquet file of predictions, one row an image.

    Columns: `id`, `path`, `reason` (why the image cannot be read, else null); `predicted` (the most probable class,
    only for classes); `entropy` (float32, nats); for each class or vote fraction `p_<name>`, and where there are such
    `network_sd_<name>` and `symmetry_sd_<name>` (float32). All of these are null for an image that cannot be read.
    """

    def __init__(self, writer: pq.ParquetWriter, task: Task) -> None:
        self._writer = writer
        self._task = task
        self._waiting: list[pa.Table] = []

    def add(self, rows: Rows, opinion: Opinion | None) -> None:
        """Append some images.

        Args:
            rows: the images.
            opinion: the answers for those of them that can be read, in order; None if there are none.
        """
        is_read = np.array([not reason for reason in rows.reasons])
        reasons = pa.array([reason or None for reason in rows.reasons], pa.string())
        columns: dict[str, Any] = {"id": pa.array(rows.ids), "path": pa.array(rows.paths), "reason": reasons}
        values = {} if opinion is None else _values(opinion, self._task)
        for item in self._writer.schema:
            if item.name not in columns:
                columns[item.name] = _spread_out(values.get(item.name), is_read, item.type)
        self._waiting.append(pa.table(columns, schema=self._writer.schema))
        if sum(table.num_rows for table in self._waiting) >= _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []


@contextmanager
def prediction_table(path: Path, task: Task, *, several: bool, averaged: bool) -> Iterator[PredictionTable]:
    """Open a table; the file appears at the end of the block, and not at all if that fails.

    Args:
        path: the file.
        task: what is answered.
        several: whether more than one network answers.
        averaged: whether answers are averaged over the symmetries.
    """
    prefixes = ["p_", *(["network_sd_"] if several else []), *(["symmetry_sd_"] if averaged else [])]
    fields = [pa.field(name, pa.string()) for name in ("id", "path", "reason")]
    fields += [pa.field("predicted", pa.string())] if task.kind == "classes" else []
    fields += [pa.field("entropy", pa.float32())]
    fields += [pa.field(f"{prefix}{name}", pa.float32()) for prefix in prefixes for name in task.names]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with pq.ParquetWriter(partial, pa.schema(fields)) as writer:
            table = PredictionTable(writer, task)
            yield table
            table.flush()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _values(opinion: Opinion, task: Task) -> dict[str, npt.NDArray[Any]]:
    values: dict[str, npt.NDArray[Any]] = {"entropy": opinion.entropy.numpy()}
    if task.kind == "classes":
        values["predicted"] = np.array(task.names, dtype=object)[opinion.mean.argmax(dim=1).numpy()]
    parts: dict[str, Tensor | None] = {
        "p_": opinion.mean,
        "network_sd_": opinion.network_sd,
        "symmetry_sd_": opinion.symmetry_sd,
    }
    for prefix, part in parts.items():
        if part is not None:
            values |= {f"{prefix}{name}": part[:, index].numpy() for index, name in enumerate(task.names)}
    return values


def _spread_out(values: npt.NDArray[Any] | None, is_read: npt.NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """Values of the images that were read, with nulls for the others in between."""
    cells = np.full(len(is_read), None, dtype=object)
    if values is not None:
        cells[is_read] = values
    return pa.array(cells, kind)
