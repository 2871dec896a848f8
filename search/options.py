"""What a user asks of a search, and how it fits the machine."""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from search.errors import NoMachineError, RunError
from search.storage import is_uri

SAMPLERS = ("tpe", "random", "gp", "cmaes", "qmc", "grid")
SHARES = ("equal", "race")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """A search as the command line asks for it; see `python -m search.run --help`."""

    spaces: tuple[Path, ...]
    data: Path | str | None = None
    num_trials: int = 20
    max_epochs: int = 27
    time_budget_s: float | None = None
    epoch_budget: int | None = None
    gpu_hours: float | None = None
    objective: str | None = None
    fixed: dict[str, Any] = field(default_factory=dict)
    sampler: str = "tpe"
    scheduler: str = "asha"
    share: str = "equal"
    patience: int | None = None
    terminator: bool = False
    repeats: int = 1
    num_finalists: int = 1
    min_complete: int = 2
    warm_start: Path | None = None
    final_seeds: int = 3
    final_configs: int = 1
    seed: int = 0
    name: str | None = None
    runs_dir: Path = Path("runs")
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    processes_per_trial: int | None = None
    max_concurrent: int | None = None
    precision: str | None = None
    weights_dir: Path | None = None
    trial_timeout_s: float | None = None
    max_restarts: int = 3
    keep_top: int = 1
    price_per_hour: float | None = None
    address: str | None = None
    storage: str | None = None
    resume: Path | None = None
    accept_changes: bool = False
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        """The options as plain JSON types, for the run's record."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["spaces"] = [str(path) for path in self.spaces]
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SearchOptions":
        """Rebuild options from `to_json`; names that this version does not know are passed over."""
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in values.items() if name in known}
        values["spaces"] = tuple(Path(path) for path in values["spaces"])
        for name in ("warm_start", "runs_dir", "weights_dir", "resume"):
            values[name] = None if values.get(name) is None else Path(values[name])
        values["data"] = None if values.get("data") is None else place(values["data"])
        return cls(**values)


@dataclass(frozen=True)
class Places:
    """How trials share the machine.

    Attributes:
        cpus_per_trial: processors reserved for each trial, which are also its threads.
        gpus_per_trial: GPUs reserved for each; a fraction shares one.
        max_concurrent: trials that run at the same time.
        processes: processes that train each trial together; each has an equal part of its processors, and one GPU
            where the trial has several.
    """

    cpus_per_trial: int
    gpus_per_trial: float
    max_concurrent: int
    processes: int = 1

    @property
    def threads(self) -> int:
        """Processors of each process."""
        return self.cpus_per_trial // self.processes

    @property
    def gpu_share(self) -> float:
        """Of each card that a trial computes on, how much is its own."""
        return min(self.gpus_per_trial, 1.0)


def plan_places(options: SearchOptions, *, num_cpus: int, num_gpus: int) -> Places:
    """Divide the machine among trials.

    Where there are GPUs each trial gets one and an equal share of the processors; else each gets one processor:
    two trials of one thread do more than one trial of two. A trial on several GPUs has a process for each.

    Raises:
        RunError: a trial asks for more than there is, or for processes that its GPUs or processors do not go into.
    """
    gpus = options.gpus_per_trial if options.gpus_per_trial is not None else float(min(num_gpus, 1))
    if options.gpu_hours is not None and not gpus:
        raise RunError("--gpu-hours: got it where no trial uses a GPU, expected some: bound the --time-budget instead")
    if gpus > num_gpus:
        raise RunError(f"--gpus-per-trial: got {gpus:g}, expected at most {num_gpus}, the GPUs there are")
    processes = _num_processes(options.processes_per_trial, gpus)
    cpus = options.cpus_per_trial
    if cpus is None:
        cpus = max(1, int(num_cpus * gpus / num_gpus) // processes) * processes if gpus else processes
    _share(cpus, processes)
    if cpus > num_cpus:
        raise RunError(f"--cpus-per-trial: got {cpus}, expected at most {num_cpus}, the processors there are")
    room = num_cpus // cpus
    if gpus:
        # A fraction is never split over two GPUs; in thousandths, since 0.1 * 3 is not 0.3.
        thousandths = round(gpus * 1000)
        on_gpus = num_gpus * (1000 // thousandths) if thousandths < 1000 else num_gpus * 1000 // thousandths
        room = min(room, on_gpus)
    return Places(cpus, gpus, min(room, options.max_concurrent or room), processes)


def _num_processes(asked: int | None, gpus: float) -> int:
    expected = int(gpus) if gpus > 1 else 1
    if gpus and asked not in (None, expected):
        raise RunError(
            f"--processes-per-trial: got {asked} with --gpus-per-trial {gpus:g}, expected {expected}, since a process "
            "has one GPU or a fraction of one: leave it out, and say how many with --gpus-per-trial"
        )
    return asked or expected


def plan_cluster(options: SearchOptions, sizes: Sequence[tuple[int, int]]) -> Places:
    """Divide the machines of a cluster among trials.

    Machines may come and go: `max_concurrent` is how many trials those of now have room for, unless the user says how
    many trials machines are to be started for. A trial in several processes may lie on several machines.

    Args:
        options: what the user asked for.
        sizes: processors and GPUs of each machine there is.

    Raises:
        NoMachineError: no machine has what a trial asks for, and none is to be started.
        RunError: options that contradict each other, or the machines.
    """
    has_gpus = any(num for _, num in sizes)
    gpus = options.gpus_per_trial if options.gpus_per_trial is not None else float(has_gpus)
    processes = _num_processes(options.processes_per_trial, gpus)
    if options.max_concurrent is not None and gpus and not has_gpus:
        # A cluster that starts its machines on demand has none before the first trial asks for one.
        return Places(_cpus_unseen(options, processes), gpus, options.max_concurrent, processes)
    one = replace(options, gpus_per_trial=gpus and min(gpus, 1.0), processes_per_trial=None, max_concurrent=None)
    if options.cpus_per_trial is not None:
        one = replace(one, cpus_per_trial=_share(options.cpus_per_trial, processes))
    # A machine that is too small for a trial takes nothing from the others.
    least = one.cpus_per_trial or 1
    wanted = [(cpus, num) for cpus, num in sizes if cpus >= least and (num or not gpus)]
    if not wanted:
        raise NoMachineError(
            f"--address: the cluster has no machine for a trial's process ({least} CPUs, {min(gpus, 1.0):g} GPUs), "
            "expected one: wait until it has joined, or name --max-concurrent, --cpus-per-trial and --gpus-per-trial "
            "of trials that machines are to be started for"
        )
    plans = [plan_places(one, num_cpus=cpus, num_gpus=num) for cpus, num in wanted]
    room = sum(plan.max_concurrent for plan in plans) // processes
    if not room and options.max_concurrent is None:
        raise NoMachineError(
            f"--processes-per-trial, --gpus-per-trial: a trial has {processes} processes, and the cluster room for "
            f"{sum(plan.max_concurrent for plan in plans)}: ask for less, or wait until more machines have joined"
        )
    cpus = min(plan.cpus_per_trial for plan in plans) * processes
    return Places(cpus, gpus, options.max_concurrent or room, processes)


def _cpus_unseen(options: SearchOptions, processes: int) -> int:
    """Processors of a trial on machines that are not there yet."""
    if options.cpus_per_trial is None:
        raise RunError(
            "--cpus-per-trial: got none, and the cluster has no machine with a GPU yet from which it would follow, "
            "expected the processors of a trial: name them"
        )
    return _share(options.cpus_per_trial, processes) * processes


def _share(cpus: int, processes: int) -> int:
    """Processors of each of a trial's processes."""
    if cpus % processes:
        raise RunError(
            f"--cpus-per-trial: got {cpus} for the {processes} processes of a trial, expected a multiple of {processes}"
        )
    return cpus // processes


def check_free(options: SearchOptions) -> None:
    """Check that the run's folder can be made, before anything is spent.

    Raises:
        RunError: it exists already, or what should hold it is no folder.
    """
    for path in (options.runs_dir, *options.runs_dir.parents):
        if path.exists() and not path.is_dir():
            raise RunError(f"--runs-dir: {path} is a file, expected a folder: choose another")
    check_storage_uri(options.storage)
    if options.name is not None and (options.runs_dir / options.name).exists():
        taken = options.runs_dir / options.name
        raise RunError(f"--name: {taken} exists already, expected a new folder: choose another name")


def check_storage_uri(storage: str | None) -> None:
    """Check that a storage, if there is one, is named as one.

    Raises:
        RunError: it is a path.
    """
    if storage is not None and not is_uri(storage):
        raise RunError(
            f"--storage: got {storage}, expected a URI such as s3://bucket/runs: for a folder that all machines share, "
            "use --runs-dir"
        )


def cluster_address(text: str) -> str | None:
    """Parse the address of a cluster; None for `local`, a Ray of this machine's own."""
    return None if text == "local" else text


def duration_s(text: str) -> float:
    """Parse a duration: seconds, or a number and a unit, such as `600`, `90s`, `10m`, `1.5h`, `2d`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a positive time such as 600, 90s, 10m or 2h")
    return seconds


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def seed_number(text: str) -> int:
    """Parse a seed: a whole number from 0 to 2**32 - 1."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 0 to {2**32 - 1}")
    return int(text)


def gpu_share(text: str) -> float:
    """Parse the GPUs of a trial: 0, a fraction of one, or a whole number."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1024 or (share > 1 and share != int(share)) or 0 < share < 0.001:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected 0, a fraction of one GPU such as 0.5, or a whole number"
        )
    return share


def place(text: str) -> Path | str:
    """Parse a folder: a path of this machine, or a URI such as `s3://bucket/shards`."""
    return text if is_uri(text) else Path(text)


def fixed_parameter(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE; the value is None, as space files write it, or JSON where it can be, else text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=VALUE, such as weights=none")
    if value == "None":
        return name, None
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def run_name(text: str) -> str:
    """Parse a run's name, which names a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected letters, digits, '.', '_' and '-', at most 100")
    return text


def more_trials(text: str) -> tuple[bool, int]:
    """Parse a number of trials; `+50` means 50 more than there were."""
    return text.startswith("+"), positive_int(text.removeprefix("+"))


def price(text: str) -> float:
    """Parse a price: a number of at least 0."""
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of at least 0")
    return float(text)
