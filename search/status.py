"""`python -m search.status RUN`: how a search stands, for anyone who can read its folder, at any time."""

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING

from galaxy_models.cli import run_command

if TYPE_CHECKING:
    from rich.table import Table

    from search.live_file import Live, Node
    from search.progress import Progress, Spent

# Above this the nodes are left to --json.
MAX_NODES = 20
INDENT = " " * 9


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _tell(options.run, as_json=options.json))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.status",
        description="Say how a search stands, while it runs or after: trials, best values, nodes, what was spent, and "
        "when it is expected to end. Nothing in its folder is changed.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder, such as runs/<name> or s3://bucket/runs/<name>")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    return parser


def _tell(run: str, *, as_json: bool) -> int:
    from search.progress import read_progress
    from search.remote_run import copied

    with copied(run, wanted=lambda name: name.partition("/")[0] not in ("final", "tensorboard")) as run_dir:
        progress = replace(read_progress(run_dir), run=run)
    if as_json:
        print(json.dumps(asdict(progress), indent=2))
        return 0
    from rich.console import Console

    console = Console()
    for line in _head(progress):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print()
    console.print(_table(progress))
    console.print()
    for line in _rest(progress, now=time.time()):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def clock(seconds: float) -> str:
    """A duration in two units: `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`."""
    whole = int(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def _head(progress: "Progress") -> list[str]:
    """The run, and whether it lives."""
    holder, ago = progress.holder or "unknown process", f"{clock(progress.silent_s)} ago"
    again = f"python -m search.run --resume {progress.run}"
    resumed = ["go on with", again] if progress.reason else []
    code = "" if progress.exit_code is None else f", exit code {progress.exit_code}"
    lines = {
        "preparing": ["preparing: no trial has begun in this session", holder],
        "searching": [f"searching; last sign of life {ago}", holder],
        "final": ["trials are over; final training or report under way", holder],
        "ended": [f"ended {ago}: {progress.reason or 'nothing was left to do'}{code}", *resumed],
        "silent": [
            f"no sign of life for {clock(progress.silent_s)} from",
            f"{holder}, which cannot be asked from here; if it is dead, go on with",
            again,
        ],
        "dead": [f"not running: killed, last sign of life {ago}", f"{holder}; go on with", again],
    }[progress.state]
    return [f"run      {progress.run}", f"state    {lines[0]}", *(INDENT + line for line in lines[1:])]


def _table(progress: "Progress") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    alive = progress.state in ("preparing", "searching")
    waits = any(one.waiting for one in progress.backbones)
    titles = ["running" if alive else "left", *["waiting"] * waits, "stopped", "done", "failed", "of"]
    table.add_column("backbone", overflow="fold")
    for title in [*titles, "best", "epoch", "trial"]:
        table.add_column(title, justify="right")
    for one in progress.backbones:
        counts = map(str, (one.running, *[one.waiting] * waits, one.stopped, one.done, one.failed, one.of))
        best = ("-",) * 3 if one.best is None else (f"{one.best:.4f}", str(one.best_epoch), str(one.best_trial))
        table.add_row(Text(one.name), *counts, *best)
    return table


def _rest(progress: "Progress", *, now: float) -> list[str]:
    """What comes below the table."""
    lines = [f"best     of {progress.objective}, running trials included"] if progress.objective else []
    live = progress.live
    if live is not None and progress.state == "searching":
        lines += _cluster(live, now)
    if progress.training_share is not None:
        lines.append(f"workers  {progress.training_share:.0%} of their time in this session went into training")
    lines += _spent(progress.spent)
    if progress.end is not None:
        lines += _end(progress.end.seconds, progress.end.assumption, now)
    return lines


def _cluster(live: "Live", now: float) -> list[str]:
    """The nodes, and which trials run where."""
    alive, running = [node for node in live.nodes if node.alive], live.running
    reserved = [f"{len(running) * live.cpus_per_trial} of {sum(node.cpus for node in alive):g} CPUs"]
    if num_gpus := sum(node.gpus for node in alive):
        reserved.append(f"{len(running) * live.gpus_per_trial:g} of {num_gpus:g} GPUs")
    lines = [
        f"nodes    {len(alive)} of {len(live.nodes)} alive, {len(running)} of {live.num_places} places busy",
        f"{INDENT}reserved: {', '.join(reserved)}",
    ]
    trials = defaultdict(list)
    for one in sorted(running, key=lambda one: (one.backbone, one.trial)):
        trials[one.address].append(f"{one.backbone} {one.trial} for {clock(now - one.since)}")
    for node in live.nodes[:MAX_NODES]:
        lines += _node(node, trials.pop(node.address, []))
    if len(live.nodes) > MAX_NODES:
        lines.append(f"{INDENT}and {len(live.nodes) - MAX_NODES} more, which --json lists")
    elif trials:
        lines.append(f"{INDENT}starting: {', '.join(words for each in trials.values() for words in each)}")
    return lines


def _node(node: "Node", trials: list[str]) -> list[str]:
    gpus = f", {node.gpus:g} GPUs" if node.gpus else ""
    what = f"{node.cpus:g} CPUs{gpus}" if node.alive else "gone"
    return [f"{INDENT}{node.name} ({node.address}), {what}", *(f"{INDENT}  {words}" for words in trials)]


def _spent(spent: "Spent") -> list[str]:
    sessions = f" in {spent.sessions} sessions" if spent.sessions > 1 else ""
    hours = f"{spent.hours:.2f} {spent.unit}-hours"
    lines = [f"spent    {clock(spent.elapsed_s)} of search{sessions}, {spent.epochs:,} epochs, {hours}"]
    if spent.cost is not None:
        lines.append(
            f"cost     {spent.cost:.2f} at {spent.price_per_hour:g} an hour, for {clock(spent.whole_s)} in all"
        )
    return lines


def _end(seconds: float | None, assumption: str, now: float) -> list[str]:
    if seconds is None:
        return [f"end      {assumption}"]
    when = datetime.fromtimestamp(now + seconds)
    day = "" if when.date() == datetime.fromtimestamp(now).date() else f"{when:%Y-%m-%d} "
    return [
        f"end      of the trials about {day}{when:%H:%M}, in {clock(seconds)},",
        f"{INDENT}{assumption};",
        f"{INDENT}the final training and the report come after",
    ]


if __name__ == "__main__":
    sys.exit(main())
