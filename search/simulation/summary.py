"""What simulated searches add up to: a row a setting for the terminal, tables of all of them for Parquet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.simulation.curves import Curves
from search.simulation.regret import mean_interval, regret_at
from search.simulation.stacks import Setting
from search.simulation.sweep import Outcome

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

# Regret is told at these shares of the time that the slowest setting with as many workers took.
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
RESULTS_FILE = "simulations.parquet"
REGRET_FILE = "regret.parquet"


@dataclass(frozen=True, eq=False)
class Summary:
    """All seeds of one setting; a pair is a mean over seeds and the half width of its 95 % interval.

    Attributes:
        setting: how was searched.
        num_seeds: searches.
        num_reached: searches that reached the target.
        target_s: virtual time until the target, in seconds; a search that missed it counts with all of its time.
        target_epochs: epochs until the target, likewise.
        elapsed_s: virtual time of the whole search.
        num_epochs: epochs of all trials.
        regret: (B, 2) regret at each share of the common time, and half widths.
        num_cut: trials whose recorded curve ended before they were stopped or done, a search.
        driver_ms: real time of the search's own work for each result.
        memory_mb: greatest growth of the process during one search.
    """

    setting: Setting
    num_seeds: int
    num_reached: int
    target_s: tuple[float, float]
    target_epochs: tuple[float, float]
    elapsed_s: tuple[float, float]
    num_epochs: tuple[float, float]
    regret: np.ndarray
    num_cut: float
    driver_ms: float
    memory_mb: float


def horizons(outcomes: Sequence[Outcome]) -> dict[int, float]:
    """For each number of workers, the time of the longest search."""
    longest: dict[int, float] = {}
    for outcome in outcomes:
        workers = outcome.setting.num_workers
        longest[workers] = max(longest.get(workers, 0.0), outcome.elapsed_s)
    return longest


def regrets(outcome: Outcome, curves: Curves, max_epochs: int, horizon_s: float) -> np.ndarray:
    """(B,) regret of one search at each share of a time; before its first result it has found the worst value."""
    return regret_at(
        horizon_s * np.array(SHARES),
        outcome.time_s,
        outcome.best,
        optimum=curves.best(max_epochs),
        worst=curves.worst(max_epochs),
    )


def summarise(outcomes: Sequence[Outcome], curves: Curves, max_epochs: int) -> list[Summary]:
    """Sum up the searches of each setting, in the order in which the settings come first."""
    longest = horizons(outcomes)
    return [
        _summary(setting, [found for found in outcomes if found.setting == setting], curves, max_epochs, longest)
        for setting in dict.fromkeys(outcome.setting for outcome in outcomes)
    ]


def _summary(
    setting: Setting, outcomes: Sequence[Outcome], curves: Curves, max_epochs: int, longest: dict[int, float]
) -> Summary:
    horizon_s = longest[setting.num_workers]
    regret = np.array([regrets(outcome, curves, max_epochs, horizon_s) for outcome in outcomes])
    return Summary(
        setting=setting,
        num_seeds=len(outcomes),
        num_reached=sum(outcome.target_s is not None for outcome in outcomes),
        target_s=mean_interval([found.elapsed_s if found.target_s is None else found.target_s for found in outcomes]),
        target_epochs=mean_interval([found.target_epochs or found.num_epochs for found in outcomes]),
        elapsed_s=mean_interval([found.elapsed_s for found in outcomes]),
        num_epochs=mean_interval([found.num_epochs for found in outcomes]),
        regret=np.array([mean_interval(column) for column in regret.T]),
        num_cut=float(np.mean([found.num_cut for found in outcomes])),
        driver_ms=float(np.mean([found.driver_ms for found in outcomes])),
        memory_mb=max(found.memory_mb for found in outcomes),
    )


def in_words(pair: Sequence[float], digits: int = 3) -> str:
    """A mean and its half width: `0.123 ± 0.004`."""
    mean, half = pair
    words = f"{mean:.0f}" if abs(mean) >= 10**digits else f"{mean:.{digits}g}"
    if math.isnan(half):
        return words
    return f"{words} ± {half:.0f}" if half >= 100 else f"{words} ± {half:.2g}"


def to_tables(summaries: Sequence[Summary], longest: dict[int, float]) -> "list[Table]":
    """The settings as two tables for the terminal: what a search took, and its regret over time."""
    from rich.table import Table

    spent = Table(title="What a search took: means over seeds ± half of the 95 % interval", title_justify="left")
    regret = Table(title="Regret after a part of the time T, likewise", title_justify="left")
    names = ["workers", "s to target", "epochs to target", "reached", "epochs", "s", "cut", "driver ms", "MB"]
    shares = [f"T/{1 / share:.0f}" if share < 1 else "T" for share in SHARES]
    for table, columns in ((spent, names), (regret, ["workers", "T, s", *shares])):
        table.add_column("setting", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
    for found in summaries:
        first = (found.setting.label, str(found.setting.num_workers))
        missed = "> " if found.num_reached < found.num_seeds else ""
        spent.add_row(
            *first,
            missed + in_words(found.target_s),
            missed + in_words(found.target_epochs),
            f"{found.num_reached} of {found.num_seeds}",
            in_words(found.num_epochs),
            in_words(found.elapsed_s),
            f"{found.num_cut:.3g}",
            f"{found.driver_ms:.2f}",
            f"{found.memory_mb:.0f}",
        )
        regret.add_row(*first, f"{longest[found.setting.num_workers]:.4g}", *(in_words(pair) for pair in found.regret))
    spent.caption = (
        ">: searches that missed the target count with all that they spent. cut: trials whose recorded curve ended "
        "before they were stopped or done. driver ms: of this machine, for each result."
    )
    regret.caption = "T: the time of the longest search with as many workers."
    for table in (spent, regret):
        table.caption_justify = "left"
    return [spent, regret]


def to_frames(outcomes: Sequence[Outcome], curves: Curves, max_epochs: int) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """All searches, a row each; and their regret, a row each search and share of the common time."""
    import pandas as pd

    longest = horizons(outcomes)
    rows, points = [], []
    for found in outcomes:
        key = {
            "stack": found.setting.stack,
            "sampler": found.setting.sampler,
            "scheduler": found.setting.scheduler,
            "workers": found.setting.num_workers,
            "seed": found.seed,
        }
        horizon_s = longest[found.setting.num_workers]
        regret = regrets(found, curves, max_epochs, horizon_s)
        rows.append(
            key
            | {
                "best_value": float(found.best[-1]),
                "regret": float(regret[-1]),
                "num_trials": found.num_trials,
                "num_epochs": found.num_epochs,
                "num_stopped": found.num_stopped,
                "num_cut": found.num_cut,
                "elapsed_s": found.elapsed_s,
                "target_s": math.nan if found.target_s is None else found.target_s,
                "target_epochs": math.nan if found.target_epochs is None else float(found.target_epochs),
                "driver_ms": found.driver_ms,
                "memory_mb": found.memory_mb,
            }
        )
        points += [
            key | {"share": share, "time_s": share * horizon_s, "regret": float(value)}
            for share, value in zip(SHARES, regret, strict=True)
        ]
    return pd.DataFrame(rows), pd.DataFrame(points)


def write_results(outcomes: Sequence[Outcome], curves: Curves, max_epochs: int, folder: Path) -> None:
    """Write `simulations.parquet` and `regret.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in zip((RESULTS_FILE, REGRET_FILE), to_frames(outcomes, curves, max_epochs), strict=True):
        frame.to_parquet(folder / name)
