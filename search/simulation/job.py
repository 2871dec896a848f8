"""A simulation from its options to its table."""

import itertools

from rich.console import Console

from search.errors import RunError
from search.samplers import check_sampler
from search.simulation.curve_files import read_curves
from search.simulation.curves import Curves
from search.simulation.engine import Bounds
from search.simulation.options import SimulationOptions
from search.simulation.stacks import OURS, STOCK, STOCK_SAMPLERS, STOCK_SCHEDULERS, Setting
from search.simulation.summary import horizons, summarise, to_tables, write_results
from search.simulation.sweep import sweep

# Unless a target is given, it is what this share of the configurations reach.
EASY_SHARE = 0.02


def settings_of(options: SimulationOptions) -> list[Setting]:
    """Every setting that is asked for; of stock ones, those that exist."""
    stacks = (OURS, STOCK) if options.stock else (OURS,)
    products = itertools.product(options.workers, options.samplers, options.schedulers, stacks)
    return [
        Setting(stack, sampler, scheduler, workers)
        for workers, sampler, scheduler, stack in products
        if stack == OURS or (sampler in STOCK_SAMPLERS and scheduler in STOCK_SCHEDULERS)
    ]


def bounds_of(options: SimulationOptions, curves: Curves) -> Bounds:
    """When a search ends.

    Raises:
        RunError: not even one result would arrive in the time.
    """
    longest = max(len(values) for values in curves.values)
    slowest = max(float(seconds[0]) for seconds in curves.seconds)
    if options.time_budget_s < slowest:
        raise RunError(
            f"--time-budget: got {options.time_budget_s:g} s, expected at least the {slowest:g} s of the slowest "
            "first epoch: allow more"
        )
    return Bounds(
        num_trials=options.num_trials,
        max_epochs=min(options.max_epochs or longest, longest),
        total_epochs=options.total_epochs,
        time_s=options.time_budget_s,
    )


def run_simulation(options: SimulationOptions, console: Console) -> None:
    """Simulate every setting, and print and write what came out."""
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise RunError(f"--out: {options.out} is a file, expected a folder: choose another")
    for name in options.samplers:
        check_sampler(name, {}, {})
    curves = read_curves(
        options.curves,
        objective=options.objective,
        direction=options.direction,
        params=options.params,
        backbone=options.backbone,
        columns=options.columns,
    )
    bounds = bounds_of(options, curves)
    best = curves.best(bounds.max_epochs)
    target = options.target if options.target is not None else curves.easy_target(bounds.max_epochs, EASY_SHARE)
    console.print(
        f"{options.curves}: {len(curves.ids)} configurations of {len(curves.params.columns)} parameters, up to "
        f"{bounds.max_epochs} epochs; best {options.objective} {best:.6g}, target {target:.6g}"
    )
    outcomes = list(
        sweep(
            curves,
            settings_of(options),
            bounds=bounds,
            num_seeds=options.num_seeds,
            seed=options.seed,
            target=target,
        )
    )
    for table in to_tables(summarise(outcomes, curves, bounds.max_epochs), horizons(outcomes)):
        console.print(table)
    if options.out is not None:
        write_results(outcomes, curves, bounds.max_epochs, options.out)
        console.print(f"all searches: {options.out}")
