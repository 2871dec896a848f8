"""A survey of a few random images, written as shards, for the tests of what reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from galaxy_models.data.manifest import SCHEMA_VERSION, Manifest, SplitEntry
from galaxy_models.data.shards import ShardWriter
from galaxy_models.task import Task

CLASSES = Task("classes", ("elliptical", "spiral_cw", "spiral_acw"), (("spiral_cw", "spiral_acw"),))
VOTES = Task("votes", tuple(f"Class{number}" for number in range(37)))


@dataclass(frozen=True)
class SmallSurvey:
    directory: Path
    manifest: Manifest
    pixels: np.ndarray
    targets: np.ndarray


def make_survey(directory: Path, *, task: Task = CLASSES, num_rows: int = 10, px: int = 8, max_rows: int = 4):
    """Write `num_rows` galaxies, all of them in train, in shards of `max_rows`."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (num_rows, px, px, 3), dtype=np.uint8)
    targets: Any = generator.integers(0, 3, num_rows)
    if task.kind == "votes":
        targets = generator.random((num_rows, 37), dtype=np.float32)
    directory.mkdir(exist_ok=True)
    writer = ShardWriter(directory, "train", px=px, task=task, max_rows=max_rows)
    for row in range(num_rows):
        writer.add(f"galaxy-{row}", pixels[row], targets[row])
    counts = [int((targets == number).sum()) for number in range(3)] if task.kind == "classes" else []
    empty = SplitEntry(num_rows=0, shards=(), class_counts=tuple(0 for _ in counts))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        survey="small",
        simulated=True,
        task=task,
        px=px,
        splits={"train": SplitEntry(num_rows, writer.close(), tuple(counts)), "val": empty, "test": empty},
        rejected=2,
        left_out=1,
        made_by={"reader": "random", "options": {"crop": 0.5, "names": ["a", "b"]}},
    )
    manifest.write(directory)
    return SmallSurvey(directory, manifest, pixels, targets)
