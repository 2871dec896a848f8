"""`live.json` in a run's folder: what the driver knows that the study does not, for those who watch.

No trial depends on it: it may be missing, or as old as the driver's last sign of life. A session that was killed counts
up to then.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from search.errors import RunError

LIVE = "live.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster.

    Attributes:
        name: its host name.
        address: its network address, by which Ray knows it.
        cpus, gpus: what it has for trials; 0 once it is gone.
        alive: whether Ray hears from it.
    """

    name: str
    address: str
    cpus: float
    gpus: float
    alive: bool


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that a worker has.

    Attributes:
        backbone: the space's name.
        trial: its number.
        address: of its node; empty while unknown.
        since: when it began there, in seconds since 1970.
        told: when it told of an epoch last, likewise; `since` before its first.
    """

    backbone: str
    trial: int
    address: str
    since: float
    told: float


@dataclass(frozen=True, kw_only=True)
class Live:
    """What the driver wrote last.

    Attributes:
        written: when, in seconds since 1970.
        ended: whether all trials were over.
        elapsed_s: seconds the search had run, earlier sessions included.
        before_s: of those, the seconds of earlier sessions.
        num_places: trials that may run at the same time.
        cpus_per_trial, gpus_per_trial: what each reserves.
        nodes: machines of the cluster.
        running: trials that workers have.
    """

    written: float
    ended: bool
    elapsed_s: float
    before_s: float
    num_places: int
    cpus_per_trial: int
    gpus_per_trial: float
    nodes: tuple[Node, ...]
    running: tuple[RunningTrial, ...]


def save_live(run_dir: Path, live: Live) -> None:
    """Write the file in one step.

    Raises:
        OSError: the disk takes no more; the file stays as it was.
    """
    partial = run_dir / f".{LIVE}.partial"
    partial.write_text(json.dumps({"schema_version": SCHEMA_VERSION, **asdict(live)}) + "\n", encoding="utf-8")
    partial.replace(run_dir / LIVE)


def load_live(run_dir: Path) -> Live | None:
    """Read the file; None if there is none, as before the first trial.

    Raises:
        RunError: it is damaged, or was written by another version.
    """
    path = run_dir / LIVE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("schema_version")
        if version == SCHEMA_VERSION:
            values["nodes"] = tuple(Node(**one) for one in values["nodes"])
            values["running"] = tuple(RunningTrial(**one) for one in values["running"])
            values |= {name: float(values[name]) for name in ("written", "elapsed_s", "before_s")}
            return Live(**values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path}: {error!r}, expected what the driver wrote: delete the file, a running search writes it anew"
        ) from None
    raise RunError(
        f"{path}: schema version {version!r}, expected {SCHEMA_VERSION}: use the version of galaxy-search that runs "
        "the search"
    )
