"""A survey of drawn shapes that a small network learns in seconds: disks, bars and rings on a noisy sky."""

import shutil
from pathlib import Path

import numpy as np

from galaxy_models.config import AugmentConfig, CnnConfig, TrainConfig
from galaxy_models.data.manifest import SCHEMA_VERSION, Manifest, SplitEntry
from galaxy_models.data.shards import ShardWriter
from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task

PX = 20
CLASSES = Task("classes", ("bar", "disk", "ring"))
VOTES = Task("votes", GZ2.columns)


def draw_shape(kind: int, generator: np.random.Generator) -> np.ndarray:
    """A (PX, PX, 3) uint8 image of a bar (0), a disk (1) or a ring (2), a little off the centre, at any angle."""
    y, x = np.mgrid[:PX, :PX] - (PX - 1) / 2 + generator.uniform(-1, 1, (2, 1, 1))
    angle = generator.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(x, y)
    shape = (
        (np.abs(along) < 7) & (np.abs(across) < 1.5),
        radius < 5,
        np.abs(radius - 6) < 1.2,
    )[kind]
    sky = generator.normal(30, 8, (PX, PX, 3))
    return np.clip(sky + 150 * shape[:, :, None], 0, 255).astype(np.uint8)


def make_shapes(directory: Path, *, task: Task = CLASSES, sizes: tuple[int, int, int] = (240, 90, 60)) -> Path:
    """Write a survey whose train, val and test splits have the given sizes; half of each are disks.

    With the votes task, disks are smooth, rings and bars are featured, with the fractions that the tree allows.
    """
    directory.mkdir()
    generator = np.random.default_rng(1)
    splits = {}
    for split, num_rows in zip(("train", "val", "test"), sizes, strict=True):
        kinds = generator.choice(3, num_rows, p=[0.2, 0.5, 0.3])
        writer = ShardWriter(directory, split, px=PX, task=task, max_rows=100)
        for row, kind in enumerate(kinds.tolist()):
            target = kind if task.kind == "classes" else shape_votes(kind)
            writer.add(f"{split}-{row}", draw_shape(kind, generator), target)
        counts = np.bincount(kinds, minlength=3).tolist() if task.kind == "classes" else []
        splits[split] = SplitEntry(num_rows, writer.close(), tuple(counts))
    Manifest(
        schema_version=SCHEMA_VERSION,
        survey="shapes",
        simulated=True,
        task=task,
        px=PX,
        splits=splits,
        rejected=0,
        left_out=0,
        made_by={"reader": "test"},
    ).write(directory)
    return directory


def copy_altered(survey: Path, copy: Path, split: str) -> Path:
    """Copy a survey, with a single bit of a split's first shard turned over."""
    shutil.copytree(survey, copy)
    shard = copy / f"{split}-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return copy


def shape_votes(kind: int) -> np.ndarray:
    """Vote fractions that obey the tree: 90 % smooth for a disk, 80 % featured for the others, barred if a bar.

    At every other question all volunteers give the first answer.
    """
    votes = np.zeros(37, np.float32)
    for question in GZ2.questions:
        shares = np.zeros(question.columns.stop - question.columns.start)
        shares[0] = 1.0
        if question.number == 1:
            shares[:] = (0.9, 0.05, 0.05) if kind == 1 else (0.15, 0.8, 0.05)
        if question.number == 2:
            shares[:] = (0.0, 1.0)
        if question.number == 3:
            shares[:] = (1.0, 0.0) if kind == 0 else (0.0, 1.0)
        reached = votes[list(question.parents)].sum() if question.parents else 1.0
        votes[question.columns] = reached * shares
    return votes


def small_config(**changes: object) -> TrainConfig:
    """A network of two stages with every random part on: sampling, augmentation and dropout."""
    settings: dict[str, object] = {
        "backbone": "cnn",
        "cnn": CnnConfig(width=8, depth=2),
        "batch_size": 32,
        "learning_rate": 0.01,
        "warmup_epochs": 0.5,
        "epochs": 3,
        "drop_rate": 0.2,
        "class_balance": "sampling",
        "augment": AugmentConfig(rotation_deg=20.0, brightness=0.1, noise=0.01),
    }
    return TrainConfig(**{**settings, **changes})  # type: ignore[arg-type]
