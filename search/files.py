"""Where a trial's files lie in the run's folder, and which of them are still wanted.

A running trial has one state, from which it goes on after a kill, and the weights of its best epoch if they may be
among the best of all. An ended trial has the latter only, and only while it is among the best.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from search.entry import Entry

WEIGHTS, STATES, ERRORS = "weights", "states", "errors"
# `weights_path` or `state_path`, or the hidden file that becomes one.
_FILE = re.compile(r"(?P<partial>\.?)trial-(?P<number>\d+)(-epoch-(?P<epoch>\d+))?\.(safetensors|pt).*")


def weights_path(run_dir: Path, space: str, number: int, epoch: int) -> Path:
    """Where a trial's weights of an epoch lie. Only those of the best epochs are written."""
    return run_dir / WEIGHTS / space / f"trial-{number:05d}-epoch-{epoch:04d}.safetensors"


def state_path(run_dir: Path, space: str, number: int) -> Path:
    """Where a running trial's state lies: all that an exact continuation needs, as of its latest epoch."""
    return run_dir / STATES / space / f"trial-{number:05d}.pt"


def hang_path(run_dir: Path, space: str, number: int) -> Path:
    """Where a trial that hung left word of the place; see `limited`."""
    return run_dir / ERRORS / f"{space}-{number:05d}-hung.txt"


def error_path(run_dir: Path, space: str, number: int) -> Path:
    """Where a trial that met a fault left its traceback."""
    return run_dir / ERRORS / f"{space}-{number:05d}.txt"


def sweep(run_dir: Path, space: str, *, live: Mapping[int, Entry], best: Collection[Entry]) -> None:
    """Delete states and weights that are not wanted any more.

    Args:
        run_dir: the run's folder.
        space: the space's name.
        live: its trials that have not ended, by number.
        best: its ended trials whose weights are kept.
    """
    wanted = {weights_path(run_dir, space, entry.number, entry.best_epoch).name for entry in best}
    for folder in (run_dir / WEIGHTS / space, run_dir / STATES / space):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in wanted and not _of_running(path.name, live):
                path.unlink(missing_ok=True)


def sweep_partials(run_dir: Path, trial: tuple[str, int] | None = None) -> None:
    """Delete what workers that are no more had not finished writing.

    Args:
        run_dir: the run's folder.
        trial: space and number of the one trial that has no worker now; None = no trial has one.
    """
    for folder in (run_dir / WEIGHTS, run_dir / STATES):
        for path in folder.glob("*/.*" if trial is None else f"{trial[0]}/.*"):
            found = _FILE.fullmatch(path.name)
            if found and found["partial"] and (trial is None or int(found["number"]) == trial[1]):
                path.unlink(missing_ok=True)


def unwanted(
    names: Iterable[str], space: str, *, live: Mapping[int, Entry], best: Collection[Entry], num_known: int
) -> list[str]:
    """Which of a storage's files are states and weights that are not wanted any more.

    Args:
        names: of files, relative to the run's folder there.
        space: the space's name.
        live: its trials that had not ended when this was asked, by number.
        best: its ended trials whose weights are kept.
        num_known: trials that the space had then; those of later ones are left alone.
    """
    wanted = {weights_path(Path(), space, entry.number, entry.best_epoch).name for entry in best}
    found = []
    for name in names:
        match = _FILE.fullmatch(Path(name).name)
        known = match is not None and int(match["number"]) < num_known
        if known and Path(name).name not in wanted and not _of_running(Path(name).name, live):
            found.append(name)
    return found


def _of_running(name: str, live: Mapping[int, Entry]) -> bool:
    """Whether a file belongs to a running trial and may be its newest."""
    found = _FILE.fullmatch(name)
    running = live.get(int(found["number"])) if found else None
    if found is None or running is None:
        return False
    # A running trial may have written an epoch that is not reported yet, or be writing; see `sweep_partials`.
    return bool(found["partial"]) or found["epoch"] is None or int(found["epoch"]) >= running.best_epoch
