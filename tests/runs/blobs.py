"""Searches as a user starts them, on blobs small enough to learn in seconds."""

import contextlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from galaxy_models.data.manifest import SCHEMA_VERSION, Manifest, SplitEntry
from galaxy_models.data.shards import ShardWriter
from galaxy_models.task import Task

PX = 32
SPACE = """
from galaxy_models.config import CnnConfig, TrainConfig

named = [{"learning_rate": 3e-3, "width": 8}]


def space(trial):
    width = trial.suggest_int("width", 4, 12, step=4)
    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    # The last of these trials cannot but diverge.
    return TrainConfig(
        backbone="cnn",
        cnn=CnnConfig(width=width, depth=3, norm="none" if trial.number == 5 else "batch"),
        batch_size=32,
        optimizer="sgd" if trial.number == 5 else "adamw",
        learning_rate=100.0 if trial.number == 5 else learning_rate,
        momentum=0.99,
        precision="float32",
    )
"""


# Begins a `sitecustomize.py`, which Python imports at its start, with what is for workers only; each begins as another
# process, whose words are the worker's and more.
IN_WORKERS = """
import os, sys, time
if "".join(sys.orig_argv[1:2]).endswith("default_worker.py"):
"""
# An epoch takes half a second at least, however fast the machine.
SLOW_EPOCHS = (
    IN_WORKERS
    + """
    import galaxy_models.training.loop as loop
    run_epoch = loop.Trainer.run_epoch
    def slowly(self):
        time.sleep(0.5)
        return run_epoch(self)
    loop.Trainer.run_epoch = slowly
"""
)


def draw(kind: int, rng: np.random.Generator) -> np.ndarray:
    """A round blob, or a flat one at any angle."""
    y, x = np.mgrid[:PX, :PX] - (PX - 1) / 2
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = np.exp(-(u**2 / 40 + v**2 / (40 if kind == 0 else 4)))
    noisy = 180 * light + rng.normal(20, 12, (PX, PX))
    return np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def write_survey(folder: Path) -> Path:
    """Blobs, round or flat: 160 to train on."""
    task, splits = Task("classes", ("round", "flat")), {}
    for index, (split, num_rows) in enumerate({"train": 160, "val": 60, "test": 60}.items()):
        rng = np.random.default_rng(index)
        writer = ShardWriter(folder, split, px=PX, task=task)
        for row in range(num_rows):
            writer.add(f"{split}-{row}", draw(row % 2, rng), row % 2)
        splits[split] = SplitEntry(num_rows, writer.close(), (num_rows // 2, num_rows // 2))
    Manifest(SCHEMA_VERSION, "blobs", False, task, PX, splits, 0, 0, {}).write(folder)
    return folder


class Scales:
    """Weighs, as often as it can, what a run keeps of its trials, from a thread of its own.

    Attributes:
        largest_bytes: the most that it ever kept.
        checkpoint_bytes: the largest state and the largest weights together.
        num_looks: how often it looked.
    """

    def __init__(self, run_dir: Path) -> None:
        self.largest_bytes = self.num_looks = 0
        self._run_dir = run_dir
        self._largest = {"states": 0, "weights": 0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._weigh, daemon=True)

    @property
    def checkpoint_bytes(self) -> int:
        return sum(self._largest.values())

    def __enter__(self) -> "Scales":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _weigh(self) -> None:
        while not self._over.wait(0.01):
            sizes = [(name, size) for name in self._largest for size in self._sizes(self._run_dir / name)]
            self.num_looks += 1
            self.largest_bytes = max(self.largest_bytes, sum(size for _, size in sizes))
            for name, size in sizes:
                self._largest[name] = max(self._largest[name], size)

    def _sizes(self, folder: Path) -> list[int]:
        sizes = []
        for path in folder.glob("*/*"):
            # Hidden files, which become the others, count as they grow.
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return sizes


def start(
    folder: Path, *words: str, module: str = "search.run", terminal: int | None = None, **environment: str
) -> subprocess.Popen[str]:
    """A process group of its own, if it writes on a terminal, as a shell makes one."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.PIPE if terminal is None else terminal,
        start_new_session=terminal is not None,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def run(folder: Path, *words: str, module: str = "search.run", **environment: str) -> tuple[int, str, str]:
    process = start(folder, *words, module=module, **environment)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def run_here(folder: Path, main: Callable[[list[str]], int], *words: str) -> tuple[int, str, str]:
    """The same within this process, which has loaded what a process of its own would have to load first."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        patch.dict(os.environ, COLUMNS="200"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main([*words])
    return code, out.getvalue(), err.getvalue()


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Let a search of this process that ends before its first trial take a Ray as begun."""
    patch.setattr("search.job.running_ray", lambda address, remedy: contextlib.nullcontext([(2, 0)]))


def descendants(pid: int) -> set[int]:
    """Process numbers of all children, and of theirs."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in table.splitlines())}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}
