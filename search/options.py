"""What a user asks of a search, and how it fits the machine."""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galaxy_models.config import PRECISIONS
from search.errors import RunError

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """A search as the command line asks for it; see `python -m search.run --help`."""

    spaces: tuple[Path, ...]
    data: Path | None
    num_trials: int
    max_epochs: int
    time_budget_s: float | None
    objective: str | None
    fixed: dict[str, Any]
    seed: int
    name: str | None
    runs_dir: Path
    cpus_per_trial: int | None
    gpus_per_trial: float | None
    max_concurrent: int | None
    precision: str | None
    weights_dir: Path | None
    command: str


@dataclass(frozen=True)
class Places:
    """How trials share the machine.

    Attributes:
        cpus_per_trial: processors reserved for each trial, which are also its threads.
        gpus_per_trial: GPUs reserved for each; a fraction shares one.
        max_concurrent: trials that run at the same time.
    """

    cpus_per_trial: int
    gpus_per_trial: float
    max_concurrent: int


def plan_places(options: SearchOptions, *, num_cpus: int, num_gpus: int) -> Places:
    """Divide the machine among trials.

    Where there are GPUs each trial gets one and an equal share of the processors; else each gets one processor:
    two trials of one thread do more than one trial of two.

    Raises:
        RunError: a trial asks for more than there is.
    """
    gpus = options.gpus_per_trial if options.gpus_per_trial is not None else float(min(num_gpus, 1))
    if gpus > num_gpus:
        raise RunError(f"--gpus-per-trial: got {gpus:g}, expected at most {num_gpus}, the GPUs there are")
    cpus = options.cpus_per_trial
    if cpus is None:
        cpus = max(1, int(num_cpus * gpus / num_gpus)) if gpus else 1
    if cpus > num_cpus:
        raise RunError(f"--cpus-per-trial: got {cpus}, expected at most {num_cpus}, the processors there are")
    room = num_cpus // cpus
    if gpus:
        # A fraction is never split over two GPUs; in thousandths, since 0.1 * 3 is not 0.3.
        thousandths = round(gpus * 1000)
        on_gpus = num_gpus * (1000 // thousandths) if thousandths < 1000 else num_gpus * 1000 // thousandths
        room = min(room, on_gpus)
    return Places(cpus, gpus, min(room, options.max_concurrent or room))


def check_free(options: SearchOptions) -> None:
    """Check that the run's folder can be made, before anything is spent.

    Raises:
        RunError: it exists already, or what should hold it is no folder.
    """
    for path in (options.runs_dir, *options.runs_dir.parents):
        if path.exists() and not path.is_dir():
            raise RunError(f"--runs-dir: {path} is a file, expected a folder: choose another")
    if options.name is not None and (options.runs_dir / options.name).exists():
        taken = options.runs_dir / options.name
        raise RunError(f"--name: {taken} exists already, expected a new folder: choose another name")


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


def fixed_parameter(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE; the value is JSON where it can be, else text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=VALUE, such as weights=none")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def run_name(text: str) -> str:
    """Parse a run's name, which names a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected letters, digits, '.', '_' and '-', at most 100")
    return text


def make_parser() -> argparse.ArgumentParser:
    """The command line of `python -m search.run`."""
    parser = argparse.ArgumentParser(
        prog="python -m search.run",
        description="Tune one or several backbones on a galaxy survey, on equal terms, and compare them in a report.",
    )
    add = parser.add_argument
    add(
        "--space",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="a space file; give it once for each backbone",
    )
    add("--data", type=Path, metavar="DIR", help="shards made by galaxy_models.data.convert (default: a simulated sky)")
    bounds = parser.add_argument_group("bounds, whichever comes first").add_argument
    bounds("--num-trials", type=positive_int, default=20, metavar="N", help="trials for each space (default 20)")
    bounds(
        "--max-epochs",
        type=positive_int,
        default=27,
        metavar="N",
        help="epochs of a trial that is not stopped early (default 27)",
    )
    bounds("--time-budget", type=duration_s, metavar="TIME", help="end the search after this long: seconds, or 10m, 2h")
    add(
        "--objective", metavar="METRIC", help="validation metric to optimise (default: nll for classes, rmse for votes)"
    )
    add(
        "--fix",
        type=fixed_parameter,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="keep a parameter of the spaces at one value",
    )
    add("--seed", type=seed_number, default=0, metavar="N", help="of every random draw (default 0)")
    add("--name", type=run_name, help="the run's folder below --runs-dir (default: the survey's name and the time)")
    add("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept (default: runs)")
    add(
        "--weights-dir",
        type=Path,
        metavar="DIR",
        help="folder of <timm name>.safetensors that serve as ImageNet weights offline",
    )
    machine = parser.add_argument_group("machine").add_argument
    machine(
        "--cpus-per-trial",
        type=positive_int,
        metavar="N",
        help="processors and threads of a trial (default: 1, or an equal share a GPU)",
    )
    machine(
        "--gpus-per-trial",
        type=gpu_share,
        metavar="N",
        help="GPUs of a trial; a fraction shares one (default: 1 where there are any)",
    )
    machine(
        "--max-concurrent", type=positive_int, metavar="N", help="trials at the same time (default: as many as fit)"
    )
    machine(
        "--precision",
        choices=PRECISIONS,
        help="arithmetic of the networks (default: as the space says, else the fastest in hardware)",
    )
    return parser


def parse_options(arguments: list[str], command: str) -> SearchOptions:
    """Read a command line.

    Args:
        arguments: without the program's name.
        command: the whole line as typed, for the record.
    """
    parsed = make_parser().parse_args(arguments)
    fixed = dict(parsed.fix)
    if len(fixed) != len(parsed.fix):
        raise RunError(f"--fix: got {[name for name, _ in parsed.fix]}, expected each parameter once")
    stems = [path.stem for path in parsed.space]
    if len(set(stems)) != len(stems):
        raise RunError(
            f"--space: got {', '.join(stems)}, expected files of different names: the name is the backbone's"
        )
    return SearchOptions(
        spaces=tuple(parsed.space),
        data=parsed.data,
        num_trials=parsed.num_trials,
        max_epochs=parsed.max_epochs,
        time_budget_s=parsed.time_budget,
        objective=parsed.objective,
        fixed=fixed,
        seed=parsed.seed,
        name=parsed.name,
        runs_dir=parsed.runs_dir,
        cpus_per_trial=parsed.cpus_per_trial,
        gpus_per_trial=parsed.gpus_per_trial,
        max_concurrent=parsed.max_concurrent,
        precision=parsed.precision,
        weights_dir=parsed.weights_dir,
        command=command,
    )
