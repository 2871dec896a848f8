"""The folder of a run: made once, never written over, with a record of what was asked."""

import contextlib
import importlib.metadata
import json
import platform
import re
import shutil
from datetime import datetime
from pathlib import Path

from search.errors import RunError
from search.options import SearchOptions
from search.preflight import Plan

RECORD = "run.json"
_PACKAGES = ("galaxy-search", "ray", "optuna", "torch", "torchvision", "timm", "pyarrow", "numpy")


def create_run_dir(options: SearchOptions, plan: Plan) -> Path:
    """Make the run's folder, with the space files as they were and what was asked.

    Raises:
        RunError: the folder exists already.
    """
    survey = re.sub(r"[^A-Za-z0-9._-]+", "-", plan.manifest.survey).strip(".-") or "survey"
    run_dir = options.runs_dir / (options.name or f"{survey}-{datetime.now():%Y%m%d-%H%M%S}")
    try:
        run_dir.mkdir(parents=True)
    except FileExistsError:
        raise RunError(f"--name: {run_dir} exists already, expected a new folder: choose another name") from None
    (run_dir / "spaces").mkdir()
    for space in plan.spaces.values():
        shutil.copyfile(space.path, run_dir / "spaces" / f"{space.name}.py")
    record = {
        "command": options.command,
        "data": str(plan.data),
        "survey_digest": plan.manifest.digest,
        "spaces": {space.name: space.digest for space in plan.spaces.values()},
        "seed": options.seed,
        "num_trials": options.num_trials,
        "max_epochs": options.max_epochs,
        "time_budget_s": options.time_budget_s,
        "objective": plan.metric,
        "fixed": plan.fixed,
        "precision": options.precision,
        "versions": package_versions(),
    }
    (run_dir / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return run_dir


def package_versions() -> dict[str, str]:
    """Versions of Python, of this project and of what decides its numbers."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
