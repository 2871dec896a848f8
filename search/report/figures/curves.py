"""How the search went: best value so far, and the learning curves of every trial with the rungs they met."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from search.report.blocks import Figure, counted, decimal
from search.report.figures.style import QUIET, clipped, dashes, finished, series, single_axes
from search.report.findings import Findings
from search.report.run_info import RunInfo

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# The share of values that fits into a frame; a few first epochs far off would flatten all the rest.
SHOWN_SHARE = 0.93
# The share of an axis that the label of an epoch takes.
LABEL_SHARE = 0.05
CURVES_KEY = (
    "Thick line: the best trial, its best epoch dotted. Thin coloured lines: other complete trials. Grey lines: trials "
    "stopped early, a circle where; a cross: failed. Dotted verticals: rungs, where trials are compared."
)


def progress(findings: Findings) -> Figure | None:
    """Best value so far against epochs spent, a line a backbone; None without a single value."""
    trials, info = findings.trials, findings.info
    paths = {name: _best_so_far(_valid_curves(findings, name), info) for name in trials.backbones}
    paths = {name: path for name, path in paths.items() if path[1]}
    if not paths:
        return None
    metric = findings.objective
    with single_axes() as axes:
        for index, name in enumerate(trials.backbones):
            if name in paths:
                x, y = paths[name]
                axes.step(x, y, where="post", color=series(index), linestyle=dashes(index), linewidth=1.8)
        _name_lines(axes, {trials.backbones.index(name): name for name in paths}, info)
        limits = _limits([value for _, ys in paths.values() for value in ys], info, shown=0.8)
        axes.set(
            xlabel="Epochs spent, in the order of their ends", ylabel=f"Best validation {metric} so far", ylim=limits
        )
        axes.set_xlim(left=0)
        words = [
            f"{name}: {decimal(y[0], 4)} after {counted(x[0], 'epoch')}, {decimal(y[-1], 4)} after {x[-1]:,}."
            for name, (x, y) in paths.items()
        ]
        better = "lower" if info.direction == "min" else "higher"
        title = f"Best validation {metric} so far against training epochs spent ({better} is better)"
        return finished(axes, "progress", title=title, text=" ".join(words))


def _valid_curves(findings: Findings, backbone: str) -> "pd.DataFrame":
    """A backbone's epochs; those of failed trials count as spent, but their values are no one's best."""
    curves, table = findings.trials.curves, findings.trials.table
    own = curves[curves["backbone"] == backbone]
    failed = table["trial"][(table["backbone"] == backbone) & (table["state"] == "FAIL")]
    return own.assign(value=own["value"].where(~own["trial"].isin(failed)))


def _best_so_far(curves: "pd.DataFrame", info: RunInfo) -> tuple[list[int], list[float]]:
    """Where the best value changes: epochs spent and value; ends at the last epoch.

    Epochs count in the order in which they ended, as trials train side by side; where nobody took the time down, trial
    by trial.
    """
    spent: list[int] = []
    values: list[float] = []
    better = min if info.direction == "min" else max
    order = [name for name in ("elapsed_s", "trial", "epoch") if name in curves]
    ordered = curves.sort_values(order)["value"].tolist()
    for count, value in enumerate(ordered, start=1):
        if math.isfinite(value) and (not values or (value != values[-1] and better(value, values[-1]) == value)):
            spent.append(count)
            values.append(value)
    if values and spent[-1] < len(ordered):
        spent.append(len(ordered))
        values.append(values[-1])
    return spent, values


def learning_curves(findings: Findings) -> tuple[Figure, ...]:
    """Validation objective of every trial against its epochs, a picture a backbone, all on the same axes."""
    trials, info = findings.trials, findings.info
    curves = trials.curves[np.isfinite(trials.curves["value"])]
    if curves.empty:
        return ()
    limits = _limits(curves["value"].tolist(), info, shown=SHOWN_SHARE)
    states = trials.table.set_index(["backbone", "trial"])["state"].to_dict()
    drawn = []
    for index, backbone in enumerate(trials.backbones):
        own = curves[curves["backbone"] == backbone]
        if not own.empty:
            lines = {
                number: (of_trial["epoch"].tolist(), of_trial["value"].tolist(), states[backbone, number])
                for number, of_trial in own.groupby("trial")
            }
            drawn.append(_curves_figure(findings, backbone, index, lines, limits))
    return tuple(drawn)


Line = tuple[list[int], list[float], str]


def _curves_figure(
    findings: Findings, backbone: str, index: int, lines: dict[Any, Line], limits: tuple[float, float]
) -> Figure:
    info, best = findings.info, findings.chosen_trial(backbone)
    metric, color = findings.objective, series(index)
    ends = {state: [(x[-1], y[-1]) for x, y, of in lines.values() if of == state] for state in ("PRUNED", "FAIL")}
    with single_axes() as axes:
        for rung in info.rungs:
            axes.axvline(rung, color=QUIET, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.plot(*_joined([line for line in lines.values() if line[2] != "COMPLETE"]), color=QUIET, linewidth=0.5)
        axes.plot(*_joined([line for line in lines.values() if line[2] == "COMPLETE"]), color=color, linewidth=0.7)
        for state, marker in (("PRUNED", "o"), ("FAIL", "x")):
            if ends[state]:
                axes.plot(
                    *zip(*ends[state], strict=True), marker, color=QUIET, markersize=2.6, fillstyle="none", mew=0.7
                )
        if best in lines:
            x, y, _ = lines[best]
            axes.plot(x, y, color=color, linewidth=2.2)
            extreme = min(y) if info.direction == "min" else max(y)
            axes.plot([x[y.index(extreme)]], [extreme], "o", color=color, markersize=5)
        _epoch_axis(axes, info)
        axes.set(xlabel="Epoch (logarithmic)", ylabel=f"Validation {metric}", ylim=limits)
        title = f"{backbone}: validation {metric} against epochs"
        return finished(axes, f"curves-{index}", title=title, text=_words(lines, best, limits))


def _words(lines: dict[Any, Line], best: int | None, limits: tuple[float, float]) -> str:
    states = [state for _, _, state in lines.values()]
    outside = sum(not limits[0] <= value <= limits[1] for _, values, _ in lines.values() for value in values)
    words = [
        f"{counted(len(lines), 'trial')}: {states.count('COMPLETE')} complete, {states.count('PRUNED')} stopped early, "
        f"{states.count('FAIL')} failed."
    ]
    if best in lines:
        x, y, _ = lines[best]
        words.append(
            f"The best, trial {best}, goes from {decimal(y[0], 4)} at epoch {x[0]} to {decimal(y[-1], 4)} at {x[-1]}."
        )
    if outside:
        words.append(f"{counted(outside, 'value')} outside the frame.")
    return " ".join(words)


def _joined(lines: list[Line]) -> tuple[list[float], list[float]]:
    """Many lines as one with gaps: one SVG path instead of a thousand."""
    xs: list[float] = []
    ys: list[float] = []
    for x, y, _ in lines:
        xs += [*x, math.nan]
        ys += [*y, math.nan]
    return xs, ys


def _epoch_axis(axes: "Axes", info: RunInfo) -> None:
    from matplotlib.ticker import NullLocator

    ticks = _epoch_ticks(info)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(0.93, max(info.max_epochs, 2) * 1.07)


def _epoch_ticks(info: RunInfo) -> list[int]:
    """The first epoch, the last, and of the rungs between as many as have room for their labels."""
    room = LABEL_SHARE * math.log(info.max_epochs)
    ticks = [1]
    for rung in info.rungs:
        if min(math.log(rung / ticks[-1]), math.log(info.max_epochs / rung)) > room:
            ticks.append(rung)
    return sorted({*ticks, info.max_epochs})


def _limits(values: list[float], info: RunInfo, *, shown: float) -> tuple[float, float]:
    """A frame from the best value to the worst of the `shown` best share, with a margin."""
    ordered = sorted(values, reverse=info.direction == "max")
    best, worst = ordered[0], ordered[math.ceil(shown * len(ordered)) - 1]
    margin = 0.06 * abs(worst - best) or 0.05 * abs(best) or 0.05
    return min(best, worst) - margin, max(best, worst) + margin


def _name_lines(axes: "Axes", names: dict[int, str], info: RunInfo) -> None:
    """A legend in the corner that the lines leave free: they start far from the best value and end near it."""
    for index, name in names.items():
        axes.plot([], [], color=series(index), linestyle=dashes(index), linewidth=1.8, label=f" {clipped(name)}")
    axes.legend(frameon=False, loc="upper right" if info.direction == "min" else "lower right", handlelength=2.6)
