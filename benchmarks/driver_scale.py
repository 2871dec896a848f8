"""What a search's own work costs as it grows: time for each result and suggestion, memory, and the journal's size.

Searcher, scheduler, ledger and journal run as they do in a search, under a virtual clock; beside them the stock
objects with their study in memory. Ray's own work is not part of it; that of the virtual clock itself, and of finding
the recorded configuration that a suggestion stands for, is. Each row is measured in a process of its own.
"""

import argparse
import multiprocessing
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from galaxy_models.seeds import derive_seed
from search.simulation.curves import Curves, make_curves
from search.simulation.engine import Bounds, VirtualTune
from search.simulation.stacks import OURS, STOCK, Record, Setting, make_stack
from search.simulation.sweep import resident_mb
from search.simulation.table import TableSpace

NUM_CONFIGS = 12_000
MAX_EPOCHS = 27


def made_up_curves() -> Curves:
    """Curves of 12,000 configurations of eight parameters, like those of a small network; 27 epochs each."""
    draw = np.random.default_rng(derive_seed("driver scale"))
    num = NUM_CONFIGS
    params = {
        "learning_rate": 10 ** draw.uniform(-4, -1, num),
        "weight_decay": 10 ** draw.uniform(-6, -1, num),
        "drop_rate": draw.uniform(0, 0.5, num),
        "width": draw.integers(16, 96, num),
        "depth": draw.integers(2, 6, num),
        "batch_size": draw.choice(["32", "64", "128", "256"], num),
        "optimizer": draw.choice(["sgd", "adamw"], num),
        "schedule": draw.choice(["cosine", "poly", "constant"], num),
    }
    end = 0.3 + 0.05 * (np.log10(params["learning_rate"]) + 2.5) ** 2 + 0.1 * np.abs(params["drop_rate"] - 0.2)
    epochs = np.tile(np.arange(1, MAX_EPOCHS + 1), num)
    table = pd.DataFrame({name: np.repeat(values, MAX_EPOCHS) for name, values in params.items()})
    table["config"] = np.repeat(np.arange(num), MAX_EPOCHS)
    table["epoch"] = epochs
    table["value"] = np.repeat(end, MAX_EPOCHS) + np.exp(-epochs / 6) + draw.normal(0, 0.01, len(epochs))
    table["seconds"] = np.repeat(draw.uniform(20, 60, num), MAX_EPOCHS)
    return make_curves(table, where="made up", objective="value", direction="min", params=())


@dataclass(frozen=True)
class Cost:
    """What one search cost its driver.

    Attributes:
        num_results: epochs of all trials.
        cpu_ms: processor time for each result, suggestions included.
        wall_ms: time for each result, likewise; with what the disk takes, and what other programs take from this one.
        suggest_ms: (first, last) tenth of the trials: time for each suggestion.
        report_ms: (first, last) tenth of the results: time for each result without suggestions.
        memory_mb: growth of the process.
        journal_mb: size of the journal; 0 without one.
    """

    num_results: int
    cpu_ms: float
    wall_ms: float
    suggest_ms: tuple[float, float]
    report_ms: tuple[float, float]
    memory_mb: float
    journal_mb: float


def ends(times_s: np.ndarray) -> tuple[float, float]:
    """Means of the first and of the last tenth, in milliseconds."""
    tenth = max(1, len(times_s) // 10)
    return 1e3 * float(times_s[:tenth].mean()), 1e3 * float(times_s[-tenth:].mean())


def weigh(setting: Setting, num_trials: int) -> Cost:
    """Run one search and weigh it; ours with its journal on disk."""
    curves = made_up_curves()
    space, bounds = TableSpace.of(curves), Bounds(num_trials=num_trials, max_epochs=MAX_EPOCHS)
    with tempfile.TemporaryDirectory() as place, ExitStack() as kept:
        path = Path(place) / "study.journal"
        record = kept.enter_context(Record.on_disk(path)) if setting.stack == OURS else Record()
        stack = make_stack(setting, curves, space, bounds=bounds, seed=0, record=record)
        tune = VirtualTune(stack, curves, num_workers=setting.num_workers, bounds=bounds, timer=time.process_time)
        before, cpu_s, wall_s = resident_mb(), time.process_time(), time.perf_counter()
        trace = tune.run()
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        grown = resident_mb() - before
        journal_mb = path.stat().st_size / 1e6 if path.exists() else 0.0
    num = len(trace.value)
    spent = 1e3 * cpu_s / num, 1e3 * wall_s / num
    return Cost(num, *spent, ends(trace.suggest_s), ends(trace.result_s), grown, journal_mb)


def main() -> None:
    """Parse the options, weigh each search in a fresh process, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--scheduler", default="asha")
    parser.add_argument("--stock-trials", type=int, default=1000, help="the stock objects do no more trials than this")
    options = parser.parse_args()
    print("Processor time of the driver in ms, memory in MB; first -> last tenth of the trials or results")
    context = multiprocessing.get_context("spawn")
    for num_trials in options.trials:
        for workers in options.workers:
            for stack in (OURS, STOCK):
                if stack == STOCK and num_trials > options.stock_trials:
                    continue
                setting = Setting(stack, options.sampler, options.scheduler, workers)
                with context.Pool(1) as pool:
                    cost = pool.apply(weigh, (setting, num_trials))
                print(
                    f"  {setting.label:<18}{num_trials:6d} trials {workers:5d} workers {cost.num_results:7d} results"
                    f" {cost.cpu_ms:7.2f} ({cost.wall_ms:6.2f} by the clock) a result"
                    f"  suggest {cost.suggest_ms[0]:6.1f} -> {cost.suggest_ms[1]:6.1f}"
                    f"  report {cost.report_ms[0]:6.2f} -> {cost.report_ms[1]:6.2f}  memory {cost.memory_mb:6.1f}"
                    f"  journal {cost.journal_mb:5.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
