"""Simulates every setting with every seed, and measures how each search went."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from galaxy_models.seeds import derive_seed
from search.samplers import NUM_STARTUP_TRIALS
from search.simulation.curves import Curves
from search.simulation.engine import Bounds, Trace, VirtualTune
from search.simulation.regret import best_so_far, first_reached
from search.simulation.stacks import Record, Setting, make_stack
from search.simulation.table import TableSpace

_STATM = Path("/proc/self/statm")
_PAGE_MB = 4096 / 1e6


@dataclass(frozen=True, eq=False)
class Outcome:
    """One simulated search.

    Attributes:
        setting: how it searched.
        seed: its number, from 0.
        time_s: (R,) virtual time of each result, in seconds.
        best: (R,) the best value up to each result.
        num_trials: trials that gave a result.
        num_stopped: trials that the scheduler ended.
        num_cut: trials whose recorded curve ended first.
        target_s: virtual time when the target was reached; None if it never was.
        target_epochs: epochs spent until then.
        driver_ms: real time that searcher, scheduler and callbacks took for each result, in milliseconds.
        memory_mb: growth of the process while it ran.
    """

    setting: Setting
    seed: int
    time_s: np.ndarray
    best: np.ndarray
    num_trials: int
    num_stopped: int
    num_cut: int
    target_s: float | None
    target_epochs: int | None
    driver_ms: float
    memory_mb: float

    @property
    def num_epochs(self) -> int:
        """Epochs spent in all trials."""
        return len(self.time_s)

    @property
    def elapsed_s(self) -> float:
        """When the last result arrived."""
        return float(self.time_s[-1])


def sweep(
    curves: Curves, settings: Sequence[Setting], *, bounds: Bounds, num_seeds: int, seed: int, target: float
) -> Iterator[Outcome]:
    """Simulate every setting with every seed.

    A seed's searches begin with the same random configurations, as many as a sampler draws before it learns: settings
    are compared in pairs, and what one of them owes to luck at the start the others have too.

    Args:
        curves: what the searches run on.
        settings: how to search.
        bounds: when a search ends.
        num_seeds: searches for each setting.
        seed: of all random draws.
        target: the value to reach.
    """
    space = TableSpace.of(curves)
    for setting in settings:
        for number in range(num_seeds):
            own = derive_seed(seed, "simulated search", number)
            first = space.draw(NUM_STARTUP_TRIALS, seed=derive_seed(own, "first") % 2**32)
            before = resident_mb()
            try:
                trace = simulate(setting, curves, space, bounds=bounds, seed=own, record=Record(first=first))
            except Exception as error:
                error.add_note(f"in a simulated search: {setting.label}, {setting.num_workers} workers, seed {number}")
                raise
            yield measure(setting, number, curves, trace, target=target, memory_mb=resident_mb() - before)


def simulate(
    setting: Setting,
    curves: Curves,
    space: TableSpace,
    *,
    bounds: Bounds,
    seed: int,
    record: Record | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> Trace:
    """Simulate one search; see `make_stack` and `VirtualTune`."""
    stack = make_stack(setting, curves, space, bounds=bounds, seed=seed, record=record)
    return VirtualTune(stack, curves, num_workers=setting.num_workers, bounds=bounds, timer=timer).run()


def measure(setting: Setting, seed: int, curves: Curves, trace: Trace, *, target: float, memory_mb: float) -> Outcome:
    """Measure how a simulated search went."""
    best = best_so_far(trace.value, curves.direction)
    reached = first_reached(best, target, curves.direction)
    ends = [trial.ended for trial in trace.trials]
    return Outcome(
        setting=setting,
        seed=seed,
        time_s=trace.time_s,
        best=best,
        num_trials=sum(trial.epochs > 0 for trial in trace.trials),
        num_stopped=ends.count("stopped"),
        num_cut=ends.count("cut"),
        target_s=None if reached is None else float(trace.time_s[reached]),
        target_epochs=None if reached is None else reached + 1,
        driver_ms=1e3 * float(trace.suggest_s.sum() + trace.result_s.sum() + trace.place_s) / len(best),
        memory_mb=memory_mb,
    )


def resident_mb() -> float:
    """Memory that this process occupies, in megabytes; NaN on a machine that does not say."""
    return int(_STATM.read_text().split()[1]) * _PAGE_MB if _STATM.is_file() else float("nan")
