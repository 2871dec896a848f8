"""Shards: decoded galaxies in uncompressed Arrow IPC files, read in place from a memory map.

A shard is one Arrow IPC file with one record batch: `id` (utf8), `pixels` (fixed-size binary, px * px * 3 bytes of
8-bit RGB, row by row) and the target, either `label` (int16, an index into the task's names) or `votes` (fixed-size
list of float32 fractions). Every process that maps a shard shares the same pages of memory.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galaxy_models.data.manifest import Manifest, ShardEntry, file_digest
from galaxy_models.errors import ManifestError, ShardError
from galaxy_models.task import Task

SHARD_BYTES = 96 * 2**20

_REMEDY = "convert the survey again, or restore the shard"


def shard_schema(task: Task, px: int) -> pa.Schema:
    """Columns of a shard of `px` by `px` images with the targets of `task`."""
    if task.kind == "classes":
        target = pa.field("label", pa.int16(), nullable=False)
    else:
        item = pa.field("item", pa.float32(), nullable=False)
        target = pa.field("votes", pa.list_(item, task.num_outputs), nullable=False)
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("pixels", pa.binary(px * px * 3), nullable=False),
            target,
        ]
    )


class ShardWriter:
    """Writes the galaxies of one split into shards, holding at most one shard in memory.

    Args:
        directory: an existing folder.
        split: the split's name, with which the files' names begin.
        px: side of the images, in pixels.
        task: says what a target is.
        max_rows: galaxies per shard; None = as many as make about 100 MB.
    """

    def __init__(self, directory: Path | str, split: str, *, px: int, task: Task, max_rows: int | None = None) -> None:
        self._directory = Path(directory)
        self._split = split
        self._px = px
        self._task = task
        self._schema = shard_schema(task, px)
        self._max_rows = max_rows or max(1, SHARD_BYTES // (px * px * 3))
        self._entries: list[ShardEntry] = []
        self._ids: list[str] = []
        self._pixels = np.empty((self._max_rows, px * px * 3), dtype=np.uint8)
        if task.kind == "classes":
            self._targets = np.empty(self._max_rows, dtype=np.int16)
        else:
            self._targets = np.empty((self._max_rows, task.num_outputs), dtype=np.float32)

    def add(self, object_id: str, pixels: npt.NDArray[np.uint8], target: int | npt.ArrayLike) -> None:
        """Append one galaxy.

        Args:
            object_id: the galaxy's name in its survey.
            pixels: (px, px, 3) uint8 RGB.
            target: the class's index, or the vote fractions in the order of the task's names.
        """
        shape = (self._px, self._px, 3)
        assert pixels.shape == shape, f"{object_id}: pixels of shape {pixels.shape}, expected {shape}"
        assert pixels.dtype == np.uint8, f"{object_id}: pixels of {pixels.dtype}, expected uint8"
        row = len(self._ids)
        if self._task.kind == "classes":
            assert isinstance(target, int | np.integer), f"{object_id}: target {target!r}, expected a class's index"
            assert 0 <= target < self._task.num_outputs, f"{object_id}: class {target} of {self._task.num_outputs}"
        else:
            assert np.shape(target) == (self._task.num_outputs,), f"{object_id}: votes of shape {np.shape(target)}"
        self._targets[row] = target
        self._pixels[row] = pixels.reshape(-1)
        self._ids.append(object_id)
        if len(self._ids) == self._max_rows:
            self._flush()

    def close(self) -> tuple[ShardEntry, ...]:
        """Write what is left and describe every shard for the manifest."""
        if self._ids:
            self._flush()
        return tuple(self._entries)

    def _flush(self) -> None:
        num_rows = len(self._ids)
        path = self._directory / f"{self._split}-{len(self._entries):05d}.arrow"
        targets = pa.array(self._targets[:num_rows].reshape(-1))
        if self._task.kind == "votes":
            targets = pa.FixedSizeListArray.from_arrays(targets, type=self._schema.field("votes").type)
        pixels_type = self._schema.field("pixels").type
        pixels = pa.Array.from_buffers(pixels_type, num_rows, [None, pa.py_buffer(self._pixels[:num_rows])])
        batch = pa.RecordBatch.from_arrays([pa.array(self._ids, pa.string()), pixels, targets], schema=self._schema)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self._schema) as writer:
            writer.write_batch(batch)
        self._entries.append(
            ShardEntry(file=path.name, num_rows=num_rows, num_bytes=path.stat().st_size, digest=file_digest(path))
        )
        self._ids = []


def _map_shard(directory: Path, entry: ShardEntry, schema: pa.Schema) -> pa.RecordBatch:
    """Map one shard and check cheaply that it is what the manifest lists; reads no pixels."""
    path = entry.locate(directory)
    try:
        source = pa.memory_map(str(path), "r")
        reader = pa.ipc.open_file(source)
        num_batches = reader.num_record_batches
        batch = reader.get_batch(0) if num_batches == 1 else None
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"shard {path}: {error}, expected an Arrow IPC file: {_REMEDY}") from None
    if batch is None:
        raise ShardError(f"shard {path}: {num_batches} record batches, expected 1: {_REMEDY}")
    if not reader.schema.equals(schema):
        found, expected = (", ".join(f"{f.name} {f.type}" for f in s) for s in (reader.schema, schema))
        raise ShardError(f"shard {path}: columns {found}, expected {expected}: {_REMEDY}")
    if batch.num_rows != entry.num_rows:
        raise ShardError(f"shard {path}: {batch.num_rows:,} rows, manifest says {entry.num_rows:,}: {_REMEDY}")
    # Arrow unpacks a compressed body into private memory without a word: only the address tells.
    source.seek(0)
    whole = source.read_buffer()
    pixels = batch.column("pixels").buffers()[1]
    if not whole.address <= pixels.address <= pixels.address + pixels.size <= whole.address + whole.size:
        raise ShardError(f"shard {path}: compressed pixels, expected uncompressed ones to map in place: {_REMEDY}")
    return batch


class Split:
    """The galaxies of one split, mapped from its shards; made by `Split.open`.

    Pickling passes the place, not the pixels: the copy maps the same files again.

    Attributes:
        num_rows: galaxies in the split.
        px: side of the images, in pixels.
        targets: (N,) int64 class indices, or (N, A) float32 vote fractions.
    """

    def __init__(self, directory: Path, manifest: Manifest, name: str) -> None:
        self._place = (directory, manifest, name)
        schema = shard_schema(manifest.task, manifest.px)
        entries = manifest.splits[name].shards
        self._batches = [_map_shard(directory, entry, schema) for entry in entries]
        self.px = manifest.px
        self.num_rows = sum(batch.num_rows for batch in self._batches)
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._pixels = [memoryview(batch.column("pixels").buffers()[1]).cast("B") for batch in self._batches]
        self.targets = self._read_targets(manifest.task)

    @classmethod
    def open(cls, directory: Path | str, manifest: Manifest, name: str) -> "Split":
        """Map the shards of one split, checking size, rows, columns and layout but not the digests.

        Args:
            directory: the survey's folder.
            manifest: its manifest; `Manifest.verify` compares the digests.
            name: `train`, `val` or `test`.

        Raises:
            ManifestError: the manifest has no such split.
            ShardError: a shard is missing, truncated or of another layout.
        """
        if name not in manifest.splits:
            raise ManifestError(f"{directory}: got the split {name!r}, expected one of {', '.join(manifest.splits)}")
        return cls(Path(directory), manifest, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Split.open, self._place

    @property
    def ids(self) -> list[str]:
        """The galaxies' names, read when asked for."""
        return [object_id for batch in self._batches for object_id in batch.column("id").to_pylist()]

    def gather(self, rows: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
        """Copy images from the maps into a buffer, with no other copy in between.

        Args:
            rows: (B,) row numbers in [0, num_rows), in any order, with repeats if wanted.
            out: (B, px, px, 3) uint8, contiguous; receives the images of `rows` in their order.

        Raises:
            IndexError: a row number lies outside the split.
        """
        assert out.shape == (len(rows), self.px, self.px, 3), f"out of shape {out.shape} for {len(rows)} rows"
        assert out.flags.c_contiguous, "out is strided: a reshaped view of it would be a copy"
        if len(rows) == 0:
            return
        if rows.min() < 0 or rows.max() >= self.num_rows:
            raise IndexError(f"rows from {rows.min()} to {rows.max()}, expected 0 to {self.num_rows - 1}")
        row_bytes = self.px * self.px * 3
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        starts = (rows - self._starts[shards]) * row_bytes
        # Slices of memoryviews are copied with less ado than rows of arrays, which matters for small images.
        target = out.reshape(-1).data
        for row, (shard, start) in enumerate(zip(shards.tolist(), starts.tolist(), strict=True)):
            target[row * row_bytes : (row + 1) * row_bytes] = self._pixels[shard][start : start + row_bytes]

    def _read_targets(self, task: Task) -> npt.NDArray[Any]:
        if task.kind == "classes":
            labels = [batch.column("label").to_numpy() for batch in self._batches]
            return np.concatenate([np.empty(0, np.int64), *labels]).astype(np.int64)
        votes = [batch.column("votes").flatten().to_numpy() for batch in self._batches]
        return np.concatenate([np.empty(0, np.float32), *votes]).reshape(-1, task.num_outputs)
