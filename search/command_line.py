"""The command line of a search: what was typed becomes a `SearchOptions`, of a new run or of one that goes on."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from galaxy_models.config import PRECISIONS
from search.errors import RunError
from search.options import (
    SAMPLERS,
    SHARES,
    SearchOptions,
    check_storage_uri,
    cluster_address,
    duration_s,
    fixed_parameter,
    gpu_share,
    more_trials,
    place,
    positive_int,
    price,
    run_name,
    seed_number,
)
from search.run_dir import load_record
from search.rungs import SCHEDULERS
from search.storage import is_uri, parent

# What a run began with and keeps: numbers before and after could not be compared else.
_KEPT = ("objective", "fix", "sampler", "scheduler", "share", "repeats", "warm_start", "seed", "name", "runs_dir",
         "precision")  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """The command line of `python -m search.run`. What is not typed is absent from the result."""
    parser = argparse.ArgumentParser(
        prog="python -m search.run",
        description="Tune one or several backbones on a galaxy survey, on equal terms, and compare them in a report.",
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--space", type=Path, action="append", metavar="FILE", help="a space file; give it once for each backbone")
    add(
        "--data",
        type=place,
        metavar="DIR",
        help="shards made by galaxy_models.data.convert, a folder or a URI such as "
        "s3://bucket/shards (default: a simulated sky)",
    )
    add(
        "--resume",
        metavar="RUN",
        help="go on with a run, such as runs/my-survey or s3://bucket/runs/my-survey; bounds may be raised",
    )
    add("--accept-changes", action="store_true", help="resume although a space, the data or the code has changed")
    add("--objective", metavar="METRIC", help="validation metric to optimise (default: nll, or rmse for votes)")
    add("--fix", type=fixed_parameter, action="append", metavar="NAME=VALUE", help="keep a parameter at one value")
    add("--seed", type=seed_number, metavar="N", help="of every random draw (default 0)")
    add("--name", type=run_name, help="the run's folder below --runs-dir (default: the survey's name and the time)")
    add("--runs-dir", type=Path, metavar="DIR", help="where runs are kept (default: runs)")
    add("--storage", metavar="URI", help="keep the run there, too, such as s3://bucket/runs, for all machines")
    add("--weights-dir", type=Path, metavar="DIR", help="folder of <timm name>.safetensors, ImageNet weights offline")
    add("--price-per-hour", type=price, metavar="P", help="of the machine, for the report's costs")
    _add_bounds(parser.add_argument_group("bounds, whichever comes first"))
    _add_search(parser.add_argument_group("search"))
    _add_machine(parser.add_argument_group("machine"))
    return parser


def _add_bounds(group: Any) -> None:
    add = group.add_argument
    add("--num-trials", type=more_trials, metavar="N", help="trials for each space (default 20); with --resume also +N")
    add("--max-epochs", type=positive_int, metavar="N", help="epochs of a trial that is not stopped (default 27)")
    add("--time-budget", type=duration_s, metavar="TIME", help="end the trials after this long: seconds, or 10m, 2h")
    add("--epoch-budget", type=positive_int, metavar="N", help="end it after so many epochs of all trials")
    add("--gpu-hours", type=price, metavar="H", help="end it after so many GPU-hours of all trials")
    add("--patience", type=positive_int, metavar="N", help="end a space after N trials without a better value")
    add("--terminator", action="store_true", help="end a space when Optuna's terminator expects no better value")


def _add_search(group: Any) -> None:
    add = group.add_argument
    add("--sampler", choices=SAMPLERS, help="what proposes configurations (default tpe)")
    add("--scheduler", choices=SCHEDULERS, help="what stops trials early (default asha); pbt trains a population")
    add("--share", choices=SHARES, help="equal: every space alike (default); race: the worse half drops out by rounds")
    add("--min-complete", type=positive_int, metavar="N", help="full trials before a space leaves a race (default 2)")
    add("--finalists", type=positive_int, metavar="N", help="best trials that must be run in full (default 1)")
    add("--repeats", type=positive_int, metavar="N", help="run the same configuration up to N times (default 1)")
    add("--warm-start", type=Path, metavar="RUN", help="begin with the best configurations of an earlier run")
    add("--final-seeds", type=positive_int, metavar="N", help="retrainings of each best configuration (default 3)")
    add("--final-configs", type=positive_int, metavar="N", help="best configurations a space to retrain (default 1)")
    add("--keep-top", type=positive_int, metavar="N", help="best trials a space whose weights are kept (default 1)")


def _add_machine(group: Any) -> None:
    add = group.add_argument
    add(
        "--address",
        metavar="ADDRESS",
        type=cluster_address,
        help="search on a running Ray cluster: auto, or host:port; local: on a Ray of this machine's own (default)",
    )
    add("--cpus-per-trial", type=positive_int, metavar="N", help="processors of a trial (default: 1, or a share a GPU)")
    add("--gpus-per-trial", type=gpu_share, metavar="N", help="GPUs of a trial; a fraction shares one (default: 1)")
    add("--processes-per-trial", type=positive_int, metavar="N", help="without GPUs: processes of a trial (default: 1)")
    add("--max-concurrent", type=positive_int, metavar="N", help="trials at the same time (default: as many as fit)")
    add("--precision", choices=PRECISIONS, help="arithmetic (default: as the space says, else the fastest in hardware)")
    add("--trial-timeout", type=duration_s, metavar="TIME", help="end a trial that takes longer for an epoch")
    add("--max-restarts", type=positive_int, metavar="N", help="restarts of a trial whose worker dies (default 3)")


def parse_options(arguments: list[str], command: str) -> SearchOptions:
    """Read a command line.

    Args:
        arguments: without the program's name.
        command: the whole line as typed, for the record.

    Raises:
        RunError: options that contradict each other, or a run that cannot be resumed.
    """
    parser = make_parser()
    typed = vars(parser.parse_args(arguments))
    if "space" not in typed and "resume" not in typed:
        parser.error("--space or --resume is needed, such as --space spaces/cnn.py")
    _check(typed)
    if "resume" in typed:
        return _resumed(typed, command)
    if "accept_changes" in typed:
        raise RunError("--accept-changes: got no --resume with it, expected one: it concerns a run that goes on")
    more, num_trials = typed.get("num_trials", (False, 20))
    if more:
        raise RunError(f"--num-trials: got +{num_trials} for a new run, expected a plain number: + goes with --resume")
    return SearchOptions(**_fields(typed), spaces=tuple(typed["space"]), num_trials=num_trials, command=command)


def _fields(typed: dict[str, Any]) -> dict[str, Any]:
    """Fields of SearchOptions by what was typed, but for spaces and trials."""
    names = {"time_budget": "time_budget_s", "trial_timeout": "trial_timeout_s", "fix": "fixed",
             "finalists": "num_finalists"}  # fmt: skip
    values = {names.get(key, key): value for key, value in typed.items() if key not in ("space", "num_trials")}
    if "fixed" in values:
        values["fixed"] = dict(values["fixed"])
    return values


def _check(typed: dict[str, Any]) -> None:
    given = [name for name, _ in typed.get("fix", [])]
    if len(set(given)) != len(given):
        raise RunError(f"--fix: got {given}, expected each parameter once")
    stems = [path.stem for path in typed.get("space", [])]
    if len(set(stems)) != len(stems):
        raise RunError(
            f"--space: got {', '.join(stems)}, expected files of different names: the name is the backbone's"
        )
    if typed.get("gpu_hours") == 0:
        raise RunError("--gpu-hours: got 0, expected more: a search needs some")
    for name in ("warm_start", "terminator"):
        if typed.get("sampler") == "grid" and name in typed:
            option = "--" + name.replace("_", "-")
            raise RunError(f"{option}: got --sampler grid, which has its own order and its own end: leave one out")
    if "min_complete" in typed and typed.get("share") != "race" and "resume" not in typed:
        raise RunError("--min-complete: got no --share race with it, expected one: it concerns a race")
    if typed.get("scheduler") == "pbt":
        _check_population(typed)


def _check_population(typed: dict[str, Any]) -> None:
    """Check options of a search by population based training, new or resumed."""
    if typed.get("num_trials") == (False, 1):
        raise RunError("--num-trials: got 1 with --scheduler pbt, expected at least 2: a population")
    if typed.get("sampler") == "grid":
        raise RunError("--sampler grid: got --scheduler pbt, which leaves the grid: choose another sampler")
    if typed.get("share") == "race":
        raise RunError("--share race: got --scheduler pbt, whose trials all end together: leave it out")
    for name in ("patience", "terminator"):
        if name in typed:
            raise RunError(f"--{name}: got --scheduler pbt, whose trials all end together: leave it out")


def _check_same_population(typed: dict[str, Any], began: SearchOptions, num_trials: int) -> None:
    """Check that the population of a run that is resumed stays as it was."""
    _check_population(typed)
    for name, asked in (("num_trials", num_trials), ("max_epochs", typed.get("max_epochs", began.max_epochs))):
        if asked != getattr(began, name):
            option = "--" + name.replace("_", "-")
            raise RunError(
                f"{option}: got a change from {getattr(began, name)} to {asked} for a run by --scheduler pbt, whose "
                "trials train and end together: begin a new run, with --warm-start to learn from this one"
            )


def _resumed(typed: dict[str, Any], command: str) -> SearchOptions:
    kept = [name for name in _KEPT if name in typed]
    if kept:
        option = "--" + kept[0].replace("_", "-")
        raise RunError(f"{option}: a run keeps what it began with, expected no such option with --resume: leave it out")
    from search.remote_run import brought_here

    run = typed.pop("resume")
    if is_uri(run) and typed.setdefault("storage", parent(run)) != parent(run):
        raise RunError(
            f"--storage: got {typed['storage']} with --resume {run}, expected none, since the run goes on where it is: "
            "leave it out, or copy the run's folder there and resume the copy"
        )
    check_storage_uri(typed.get("storage"))
    run_dir = brought_here(run, typed.get("storage"))
    record = load_record(run_dir)
    began = SearchOptions.from_json(record["options"])
    if "min_complete" in typed and began.share != "race":
        raise RunError("--min-complete: got it for a run with --share equal, expected one with race: leave it out")
    more, number = typed.get("num_trials", (True, 0))
    num_trials = began.num_trials + number if more else number
    if num_trials < began.num_trials:
        raise RunError(f"--num-trials: got {number}, expected at least the {began.num_trials} that the run began with")
    if typed.get("max_epochs", began.max_epochs) < began.max_epochs:
        raise RunError(f"--max-epochs: got {typed['max_epochs']}, expected at least the run's {began.max_epochs}")
    if began.scheduler == "pbt":
        _check_same_population(typed, began, num_trials)
    again = {path.stem: path for path in typed.get("space", [])}
    spaces = [again.pop(path.stem, _found(path, run_dir)) for path in began.spaces]
    options = replace(began, **_fields(typed), spaces=(*spaces, *again.values()), num_trials=num_trials)
    if began.address and options.storage and isinstance(options.data, Path) and not options.data.is_dir():
        # What a search on a cluster was given is in its storage, too.
        from search.shards import shared_uri

        options = replace(options, data=shared_uri(options.storage, record["survey"]["digest"]))
    return replace(options, resume=run_dir, accept_changes="accept_changes" in typed, command=command)


def _found(path: Path, run_dir: Path) -> Path:
    """A space's file, or the run's copy of it where the file is gone, as on another machine."""
    return path if path.is_file() else run_dir / "spaces" / f"{path.stem}.py"
