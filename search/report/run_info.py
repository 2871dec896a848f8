"""What was asked of a search, read from `run.json` in the run's folder."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from galaxy_models.errors import ConfigError
from galaxy_models.task import Direction, Task, objective_direction
from search.errors import RunError

RECORD = "run.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Session:
    """One call of the command line that worked on a run.

    Attributes:
        command: as typed.
        started: when, in ISO 8601.
        ended: likewise; empty while it runs, or if it was killed.
        elapsed_s: how long it searched; NaN while unknown.
        reason: why it ended; empty if all was done.
        exit_code: of the process; None while unknown.
    """

    command: str
    started: str = ""
    ended: str = ""
    elapsed_s: float = math.nan
    reason: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What was asked of a search, and of which survey.

    Attributes:
        name: the run's name.
        survey: the survey's name.
        simulated: the galaxies were drawn, not observed.
        survey_digest: identity of the survey, from its manifest.
        task: what the survey asks of a network.
        split_sizes: galaxies in each of `train`, `val` and `test`.
        class_counts: galaxies of each class, in the task's order, in each split; empty for votes.
        num_repeated_names: file names that several of the survey's own splits have; see `Manifest`.
        objective: the validation metric that was optimised.
        direction: which way of it is better.
        max_epochs: epochs of a trial that is not stopped.
        rungs: epochs after which trials were compared, ascending.
        num_trials: trials asked for, for each space; None = no limit.
        time_budget_s: seconds the search was given; None = no limit.
        seed: of the search.
        command: the command line that started it.
        versions: version of each package that matters, by name.
        elapsed_s: seconds the search took, preparation and final evaluation not counted; NaN while unknown.
        data: the folder of shards as the user typed it.
        baseline_rmse: test RMSE of answering the training galaxies' mean vote fractions; None for classes.
        threads: processors that each trial computed with; None = unknown. Other numbers of them round otherwise.
        gpus_per_trial: GPUs, or a share of one, that each trial computed with.
        weights_dir: the folder of initial weights as the user typed it; None without one.
        sampler: what proposed configurations; empty = unknown.
        scheduler: what stopped trials; empty = unknown.
        precision: number format that the command line asked for; empty = as in the spaces.
        spaces: SHA-256 of each space's file, by name.
        fixed: parameters that the command line fixed, in each space.
        price_per_hour: what the machine costs; None = not said.
        whole_s: seconds that all of its sessions took from start to end; NaN while unknown.
        sessions: the calls that worked on the run, in order.
        notes: what else a reader has to know, a sentence each.
    """

    name: str
    survey: str
    simulated: bool
    survey_digest: str
    task: Task
    split_sizes: dict[str, int]
    class_counts: dict[str, tuple[int, ...]]
    objective: str
    direction: Direction
    max_epochs: int
    rungs: tuple[int, ...]
    num_trials: int | None
    time_budget_s: float | None
    seed: int
    command: str
    versions: dict[str, str]
    elapsed_s: float
    data: str
    num_repeated_names: int = 0
    baseline_rmse: float | None = None
    threads: int | None = None
    gpus_per_trial: float = 0.0
    weights_dir: str | None = None
    sampler: str = ""
    scheduler: str = ""
    precision: str = ""
    spaces: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, dict[str, Any]] = field(default_factory=dict)
    price_per_hour: float | None = None
    whole_s: float = math.nan
    sessions: tuple[Session, ...] = ()
    notes: tuple[str, ...] = ()


def load_run_info(run_dir: Path) -> RunInfo:
    """Read what was asked of a search.

    Raises:
        RunError: the folder is no run, or its record is damaged or of another schema version.
    """
    path = run_dir / RECORD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            f"{run_dir}: found no {RECORD}, expected the folder of a run, such as runs/<name>: check the path"
        ) from None
    except ValueError as error:
        raise RunError(f"{path}: found malformed JSON ({error}), expected a run's record: restore the file") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path}: found schema version {version!r}, expected {SCHEMA_VERSION}: "
            "write the report with the version of galaxy-search that ran the search"
        )
    if "objective" not in values and "sessions" in values:
        raise RunError(
            f"{run_dir}: ended, or is, before its first trial, expected one: go on with python -m search.run "
            f"--resume {run_dir}"
        )
    try:
        return _run_info(values, run_dir.resolve().name)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise RunError(
            f"{path}: found a damaged record ({type(error).__name__}: {error}), expected all of schema version "
            f"{SCHEMA_VERSION}: restore the file"
        ) from None


def _run_info(values: Mapping[str, Any], folder: str) -> RunInfo:
    survey, task = values["survey"], _task(values["survey"]["task"])
    objective, direction = objective_direction(task.kind, values["objective"])
    optional = {name: str(values.get(name) or "") for name in ("sampler", "scheduler", "precision")}
    sessions = tuple(_session(one) for one in values.get("sessions") or ())
    return RunInfo(
        name=str(values.get("name") or folder),
        survey=str(survey["name"]),
        simulated=bool(survey["simulated"]),
        survey_digest=str(survey["digest"]),
        task=task,
        split_sizes={str(name): int(size) for name, size in survey["split_sizes"].items()},
        class_counts={str(name): tuple(map(int, counts)) for name, counts in survey["class_counts"].items()},
        objective=objective,
        direction=direction,
        max_epochs=int(values["max_epochs"]),
        rungs=tuple(map(int, values.get("rungs") or ())),
        num_trials=_optional(int, values.get("num_trials")),
        time_budget_s=_optional(float, values.get("time_budget_s")),
        seed=int(values["seed"]),
        command=str(values["command"]),
        versions={str(name): str(version) for name, version in (values.get("versions") or {}).items()},
        elapsed_s=sum(known) if (known := _known_times(sessions)) else math.nan,
        data=str(values["data"]),
        num_repeated_names=int(survey.get("num_repeated_names") or 0),
        baseline_rmse=_optional(float, values.get("baseline_rmse")),
        threads=_optional(int, values.get("threads")),
        gpus_per_trial=float(values.get("gpus_per_trial") or 0),
        weights_dir=_optional(str, values.get("weights_dir")),
        **optional,
        spaces={str(name): _digest(space) for name, space in (values.get("spaces") or {}).items()},
        fixed={str(name): dict(fixed) for name, fixed in (values.get("fixed") or {}).items()},
        price_per_hour=_optional(float, values.get("price_per_hour")),
        whole_s=sum(map(_whole, sessions)) if known else math.nan,
        sessions=sessions,
        notes=tuple(map(str, values.get("notes") or ())),
    )


def _task(values: Mapping[str, Any]) -> Task:
    pairs = tuple((str(left), str(right)) for left, right in values.get("mirror_pairs") or ())
    return Task(values["kind"], tuple(map(str, values["names"])), pairs)


def _session(values: Mapping[str, Any]) -> Session:
    elapsed_s = _optional(float, values.get("elapsed_s"))
    return Session(
        command=str(values.get("command") or ""),
        started=str(values.get("started") or ""),
        ended=str(values.get("ended") or ""),
        elapsed_s=math.nan if elapsed_s is None else elapsed_s,
        reason=str(values.get("reason") or ""),
        exit_code=_optional(int, values.get("exit_code")),
    )


def _known_times(sessions: tuple[Session, ...]) -> list[float]:
    return [session.elapsed_s for session in sessions if math.isfinite(session.elapsed_s)]


def _whole(session: Session) -> float:
    """Seconds of a session from start to end; those of its search where it has no end."""
    try:
        return (datetime.fromisoformat(session.ended) - datetime.fromisoformat(session.started)).total_seconds()
    except (ValueError, TypeError):
        return session.elapsed_s if math.isfinite(session.elapsed_s) else 0.0


def _digest(space: object) -> str:
    return str(space["digest"]) if isinstance(space, Mapping) else str(space)


def _optional(kind: Any, value: object) -> Any:
    return None if value is None else kind(value)
