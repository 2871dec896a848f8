"""What a user asks of a simulation."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from galaxy_models.task import Direction
from search.options import SAMPLERS as ALL_SAMPLERS
from search.options import duration_s, positive_int, seed_number
from search.rungs import RULES
from search.simulation.curves import Columns

# A grid over the ranges of a table says nothing of the table.
SAMPLERS = tuple(name for name in ALL_SAMPLERS if name != "grid")


@dataclass(frozen=True, kw_only=True)
class SimulationOptions:
    """A simulation as the command line asks for it; see `python -m search.simulate --help`."""

    curves: Path
    workers: tuple[int, ...]
    samplers: tuple[str, ...]
    schedulers: tuple[str, ...]
    stock: bool
    num_seeds: int
    seed: int
    num_trials: int
    max_epochs: int | None
    total_epochs: float
    time_budget_s: float
    target: float | None
    objective: str
    direction: Direction
    params: tuple[str, ...]
    columns: Columns
    backbone: str
    out: Path | None


def make_parser() -> argparse.ArgumentParser:
    """The command line of `python -m search.simulate`."""
    parser = argparse.ArgumentParser(
        prog="python -m search.simulate",
        description="Replay recorded learning curves through a search's sampler and scheduler, under a virtual clock: "
        "how soon each setting reaches a target, with how many workers.",
    )
    add = parser.add_argument
    add("curves", type=Path, metavar="CURVES", help="a run's report/curves.parquet, or a table in Parquet or CSV")
    add("--workers", type=positive_int, nargs="+", default=[1], metavar="N", help="trials side by side (default 1)")
    add("--sampler", nargs="+", choices=SAMPLERS, default=["tpe"], help="what proposes (default tpe)")
    add("--scheduler", nargs="+", choices=RULES, default=["asha"], help="what stops (default asha)")
    add("--stock", action="store_true", help="beside ours, Tune's own OptunaSearch and ASHA as its documentation says")
    add("--seeds", type=positive_int, default=30, metavar="N", help="searches for each setting (default 30)")
    add("--seed", type=seed_number, default=0, metavar="N", help="of every random draw (default 0)")
    bounds = parser.add_argument_group("bounds of a search, whichever comes first").add_argument
    bounds("--num-trials", type=positive_int, default=100, metavar="N", help="trials (default 100)")
    bounds("--total-epochs", type=positive_int, metavar="N", help="epochs of all trials together")
    bounds("--time-budget", type=duration_s, metavar="TIME", help="virtual time: seconds, or 10m, 2h")
    bounds("--max-epochs", type=positive_int, metavar="N", help="epochs of one trial (default: the longest curve's)")
    table = parser.add_argument_group("the table").add_argument
    table("--objective", default="value", metavar="COLUMN", help="the column to optimise (default value)")
    table("--direction", choices=("min", "max"), default="min", help="which way it is better (default min)")
    table("--target", type=float, metavar="VALUE", help="the value to reach (default: what 2 %% of the curves reach)")
    table("--params", nargs="+", default=[], metavar="COLUMN", help="the parameters (default: all other columns)")
    names = (("config", "an id of the configuration"), ("epoch", "from 1"), ("seconds", "that the epoch took"))
    for name, words in names:
        table(f"--{name}-column", default=name, metavar="COLUMN", help=f"{words} (default {name})")
    table("--backbone", default="", help="which backbone of a run that has several")
    add("--out", type=Path, metavar="DIR", help="write simulations.parquet and regret.parquet there")
    return parser


def parse_options(arguments: list[str]) -> SimulationOptions:
    """Read a command line, without the program's name."""
    parsed = make_parser().parse_args(arguments)
    return SimulationOptions(
        curves=parsed.curves,
        workers=tuple(dict.fromkeys(parsed.workers)),
        samplers=tuple(dict.fromkeys(parsed.sampler)),
        schedulers=tuple(dict.fromkeys(parsed.scheduler)),
        stock=parsed.stock,
        num_seeds=parsed.seeds,
        seed=parsed.seed,
        num_trials=parsed.num_trials,
        max_epochs=parsed.max_epochs,
        total_epochs=parsed.total_epochs or math.inf,
        time_budget_s=parsed.time_budget or math.inf,
        target=parsed.target,
        objective=parsed.objective,
        direction=parsed.direction,
        params=tuple(parsed.params),
        columns=Columns(parsed.config_column, parsed.epoch_column, parsed.seconds_column),
        backbone=parsed.backbone,
        out=parsed.out,
    )
