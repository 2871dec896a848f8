"""The folder of a run: made once, never written over, with a record of what was asked and by whom it was worked on."""

import contextlib
import difflib
import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import RunError

if TYPE_CHECKING:
    from search.options import SearchOptions
    from search.preflight import Plan

RECORD = "run.json"
SCHEMA_VERSION = 1
_PACKAGES = ("galaxy-search", "ray", "optuna", "torch", "torchvision", "timm", "pyarrow", "numpy")
_MAX_DIFFERENCES = 20
# The code that decides what a search finds. How it is started, watched, shown and used afterwards does not.
_CODE = (
    "galaxy_models/{config,seeds,task}.py",
    "galaxy_models/data/{augment,batches,manifest,order,pipeline,shards}.py",
    "galaxy_models/{models,morphology,training}/*.py",
    "search/{account,cma,convergence,entry,ledger,population,proposals,ranking,rungs,samplers}.py",
    "search/{lead,peers,scheduler,searcher,space,study,terms,trial,turns}.py",
)


def create_run_dir(options: "SearchOptions", plan: "Plan") -> Path:
    """Make the run's folder.

    Raises:
        RunError: the folder exists already.
    """
    survey = re.sub(r"[^A-Za-z0-9._-]+", "-", plan.manifest.survey).strip(".-") or "survey"
    run_dir = options.runs_dir / (options.name or f"{survey}-{datetime.now():%Y%m%d-%H%M%S}")
    try:
        run_dir.mkdir(parents=True)
    except FileExistsError:
        raise RunError(f"--name: {run_dir} exists already, expected a new folder: choose another name") from None
    return run_dir


def load_record(run_dir: Path) -> dict[str, Any]:
    """Read a run's record.

    Raises:
        RunError: the folder is no run, is half-copied, or was made by another version.
    """
    path = run_dir / RECORD
    if not path.is_file():
        raise RunError(f"{run_dir}: no {RECORD} in it, expected a run's folder, such as runs/<name>: check the path")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: {error!r}, expected a run's record: copy the run's folder again, whole") from None
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path}: schema version {version!r}, expected {SCHEMA_VERSION}: "
            "use the version of galaxy-search that made the run"
        )
    missing = sorted({"options", "survey", "spaces", "code", "sessions"} - record.keys())
    if missing:
        raise RunError(f"{path}: no {missing[0]!r} in it, expected a whole record: copy the run's folder again, whole")
    return dict(record)


def save_record(run_dir: Path, record: Mapping[str, Any]) -> Path:
    """Write a run's record in one step; its path."""
    partial = run_dir / f".{RECORD}.partial"
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return partial.replace(run_dir / RECORD)


def keep_spaces(run_dir: Path, plan: "Plan") -> list[Path]:
    """Keep the space files as they are; the copies."""
    (run_dir / "spaces").mkdir(exist_ok=True)
    copies = []
    for space in plan.spaces.values():
        copy, text = run_dir / "spaces" / f"{space.name}.py", space.path.read_bytes()
        if not copy.exists() or copy.read_bytes() != text:
            partial = copy.with_name(f".{copy.name}.partial")
            partial.write_bytes(text)
            partial.replace(copy)
        copies.append(copy)
    return copies


def describe_search(plan: "Plan") -> dict[str, Any]:
    """What a search is made of: its survey, spaces, code and packages, each with what tells a change."""
    manifest = plan.manifest
    task = manifest.task
    pairs = [list(pair) for pair in task.mirror_pairs]
    return {
        "survey": {
            "name": manifest.survey,
            "digest": manifest.digest,
            "simulated": manifest.simulated,
            "px": manifest.px,
            "task": {
                "kind": task.kind,
                "names": list(task.names),
                "mirror_pairs": pairs,
            },
            "split_sizes": {name: split.num_rows for name, split in manifest.splits.items()},
            "class_counts": {name: list(split.class_counts) for name, split in manifest.splits.items()},
            "num_repeated_names": manifest.num_repeated_names,
        },
        "spaces": {space.name: {"path": str(space.path), "digest": space.digest} for space in plan.spaces.values()},
        "fixed": plan.fixed,
        "code": code_digests(),
        "versions": package_versions(),
    }


def code_digests() -> dict[str, str]:
    """A digest of each file of this project that decides what a search finds."""
    root = Path(__file__).parents[1]
    paths = sorted(path for patterns in _CODE for pattern in _each(patterns) for path in root.glob(pattern))
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths}


def _each(patterns: str) -> list[str]:
    """The patterns that `a/{b,c}/d` stands for."""
    before, brace, rest = patterns.partition("{")
    if not brace:
        return [patterns]
    names, _, after = rest.partition("}")
    return [f"{before}{name}{after}" for name in names.split(",")]


def package_versions() -> dict[str, str]:
    """Versions of Python, of this project and of what decides its numbers."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def differences(run_dir: Path, record: Mapping[str, Any], now: Mapping[str, Any], plan: "Plan") -> list[str]:
    """What has changed since a run was worked on last, a line or several each.

    Args:
        run_dir: the run's folder, which holds the space files as they were.
        record: its record.
        now: `describe_search` of today.
        plan: what today's search would be.
    """
    found = []
    for name, space in plan.spaces.items():
        before = record["spaces"].get(name)
        if before is not None and before["digest"] != space.digest:
            kept = run_dir / "spaces" / f"{name}.py"
            if not kept.is_file():
                raise RunError(
                    f"{kept}: no such file, expected the space as it was: copy the run's folder again, whole"
                )
            old = kept.read_text(encoding="utf-8").splitlines()
            new = space.path.read_text(encoding="utf-8").splitlines()
            lines = list(difflib.unified_diff(old, new, f"{name}.py then", f"{space.path} now", n=0, lineterm=""))
            found += [f"space {name}:", *lines[:_MAX_DIFFERENCES]]
    for name, fixed in record.get("fixed", {}).items():
        if fixed != now["fixed"].get(name, fixed):
            found.append(f"what of space {name} is fixed: {fixed} then, {now['fixed'][name]} now")
    if record["survey"]["digest"] != now["survey"]["digest"]:
        found.append(f"data: digest {record['survey']['digest'][:12]} then, {now['survey']['digest'][:12]} now")
    for key in ("code", "versions"):
        old, new = record[key], now[key]
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        if key == "versions":
            changed = [f"{name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}" for name in changed]
        if changed:
            more = f" and {len(changed) - _MAX_DIFFERENCES} more" if len(changed) > _MAX_DIFFERENCES else ""
            found.append(f"{key}: {', '.join(changed[:_MAX_DIFFERENCES])}{more}")
    return found
