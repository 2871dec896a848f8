"""What mattered in the search: importance of each parameter, values against the main ones, and all of them at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from search.report.blocks import Figure, counted, decimal, listed, percent
from search.report.comparable import Comparable, median
from search.report.figures.style import QUIET, canvas, clipped, finished, series
from search.report.findings import Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_BARS = 8
NUM_SLICES = 3
NUM_PARALLEL = 6
# The best share of trials, drawn in colour.
BEST_SHARE = 0.2


@dataclass(frozen=True)
class Axis:
    """A parameter's values as positions in [0, 1].

    Attributes:
        name: of the parameter.
        positions: by trial number; trials that were not asked for it are missing.
        ticks: positions that are labelled, and their labels.
        log: distances are those of logarithms.
        labels: the values themselves in words, by trial number.
    """

    name: str
    positions: dict[int, float]
    ticks: tuple[tuple[float, str], ...]
    log: bool = False
    labels: dict[int, str] = field(default_factory=dict)


def importance(findings: Findings, shares: dict[str, dict[str, float]]) -> Figure | None:
    """Importance of the main parameters, a panel a backbone."""
    shown = [name for name in findings.order if shares.get(name)]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    words = []
    with canvas(inches=(3.6 * columns, 0.5 + 2.3 * rows), layout="constrained") as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, name in zip(panels, shown, strict=False):
            top = list(shares[name].items())[:NUM_BARS]
            labels = [clipped(key.replace("_", " "), 22) for key, _ in top]
            axes.barh(
                range(len(top)), [100 * share for _, share in top], color=series(findings.color(name)), height=0.66
            )
            axes.set_yticks(range(len(top)), labels)
            axes.set_ylim(NUM_BARS - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            axes.set_title(clipped(name, 34), loc="left")
            axes.grid(visible=False)
            words.append(f"{name}: {listed(tuple(f'{key} {percent(share)}' for key, share in top[:3]))}.")
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        figure.supxlabel("Importance (%)", fontsize=10)
        title = "Importance of each searched parameter for being among the best trials (PED-ANOVA), in %"
        return finished(figure, "importance", title=title, text=" ".join(words))


def slices(findings: Findings, trials: Comparable, names: Sequence[str]) -> Figure | None:
    """Values against each of the main parameters, a dot a trial."""
    axes_of = [parameter_axis(findings, trials, name) for name in names[:NUM_SLICES]]
    if not axes_of:
        return None
    limits, color = _robust_limits(findings, list(trials.values.values())), series(findings.color(trials.backbone))
    with canvas(inches=(9.0, 2.7)) as figure:
        figure.subplots_adjust(left=0.075, right=0.99, bottom=0.2, top=0.97, wspace=0.08)
        panels = figure.subplots(1, NUM_SLICES, sharey=True)
        for axes, of in zip(panels, axes_of, strict=False):
            xs = [of.positions[number] for number in trials.values if number in of.positions]
            ys = [value for number, value in trials.values.items() if number in of.positions]
            axes.plot(xs, ys, "o", color=color, markersize=3.2, alpha=0.6, mew=0)
            _label(axes, of)
        for axes in panels[len(axes_of) :]:
            axes.set_axis_off()
        panels[0].set(ylabel=f"Validation {findings.objective}", ylim=limits)
        title = (
            f"{trials.backbone}: validation {findings.objective} within {counted(trials.epochs, 'epoch')} "
            "against the parameters that mattered most, a dot a trial"
        )
        text = " ".join(_trend(of, trials, findings) for of in axes_of)
        return finished(figure, f"slices-{findings.color(trials.backbone)}", title=title, text=text)


def parallel(findings: Findings, trials: Comparable, names: Sequence[str]) -> Figure | None:
    """All main parameters of all trials, a line a trial, the best ones in colour."""
    axes_of = [parameter_axis(findings, trials, name) for name in names[:NUM_PARALLEL]]
    if len(axes_of) < 2:
        return None
    best = _best(findings, trials)
    with canvas(inches=(9.0, 3.3)) as figure:
        figure.subplots_adjust(left=0.06, right=0.94, bottom=0.13, top=0.93)
        axes = figure.add_subplot()
        for numbers, color, width, alpha in (
            ([number for number in trials.values if number not in best], QUIET, 0.5, 0.5),
            (list(best), series(findings.color(trials.backbone)), 1.3, 0.9),
        ):
            axes.plot(*_lines(axes_of, numbers), color=color, linewidth=width, alpha=alpha)
        for place, of in enumerate(axes_of):
            axes.axvline(place, color=QUIET, linewidth=0.8)
            for position, label in of.ticks:
                axes.text(place + 0.03, position, clipped(label, 12), fontsize=8, va="center")
        axes.set_xticks(range(len(axes_of)), [clipped(of.name.replace("_", " "), 20) for of in axes_of])
        axes.set(xlim=(-0.15, len(axes_of) - 0.6), ylim=(-0.05, 1.05))
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        title = f"{trials.backbone}: the main parameters of every trial, a line a trial, the best {len(best)} in colour"
        text = f"{counted(len(trials.values), 'trial')} with a value after {counted(trials.epochs, 'epoch')}."
        return finished(figure, f"parallel-{findings.color(trials.backbone)}", title=title, text=text)


def parameter_axis(findings: Findings, trials: Comparable, name: str) -> Axis:
    """Where each trial's value of a parameter lies on its axis."""
    distribution: Any = findings.trials.spaces[trials.backbone][name]
    values = {
        number: of[name]
        for number in trials.values
        for of in [findings.trials.params[trials.backbone, number]]
        if name in of
    }
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        places = {repr(choice): index / max(len(choices) - 1, 1) for index, choice in enumerate(choices)}
        positions = {number: places[repr(value)] for number, value in values.items()}
        ticks = tuple((places[repr(choice)], str(choice)) for choice in choices)
        return Axis(name, positions, ticks, labels={number: str(value) for number, value in values.items()})
    log = bool(getattr(distribution, "log", False))
    low, high = (math.log(bound) if log else float(bound) for bound in (distribution.low, distribution.high))
    span = high - low or 1.0
    positions = {number: ((math.log(value) if log else value) - low) / span for number, value in values.items()}
    ends = (
        (0.0, distribution.low),
        (0.5, math.exp(low + span / 2) if log else low + span / 2),
        (1.0, distribution.high),
    )
    labels = {number: f"{value:.3g}" for number, value in values.items()}
    return Axis(name, positions, tuple((position, f"{value:.3g}") for position, value in ends), log, labels)


def _label(axes: "Axes", of: Axis) -> None:
    ticks = of.ticks if len(of.ticks) <= 6 else (of.ticks[0], of.ticks[-1])
    axes.set_xticks([position for position, _ in ticks], [clipped(label, 12) for _, label in ticks])
    axes.set_xlim(-0.1, 1.1)
    axes.set_xlabel(f"{clipped(of.name.replace('_', ' '), 30)}{' (logarithmic)' if of.log else ''}")


def _robust_limits(findings: Findings, values: list[float]) -> tuple[float, float]:
    """A frame around the better nine tenths of the values."""
    ordered = sorted(values, reverse=findings.info.direction == "max")
    ends = ordered[0], ordered[max(0, math.ceil(0.9 * len(ordered)) - 1)]
    margin = 0.06 * abs(ends[1] - ends[0]) or 0.05 * abs(ends[0]) or 0.05
    return min(ends) - margin, max(ends) + margin


def _best(findings: Findings, trials: Comparable) -> tuple[int, ...]:
    order = sorted(trials.values, key=lambda number: trials.values[number], reverse=findings.info.direction == "max")
    return tuple(order[: max(1, round(BEST_SHARE * len(order)))])


def _lines(axes_of: list[Axis], numbers: list[int]) -> tuple[list[float], list[float]]:
    """Many lines as one with gaps, also where a trial was not asked for a parameter."""
    xs: list[float] = []
    ys: list[float] = []
    for number in numbers:
        xs += [*range(len(axes_of)), math.nan]
        ys += [*(of.positions.get(number, math.nan) for of in axes_of), math.nan]
    return xs, ys


def _trend(of: Axis, trials: Comparable, findings: Findings) -> str:
    """The parameter's median among the best trials against all."""
    best = [number for number in _best(findings, trials) if number in of.positions]
    if not best:
        return f"{of.name}: not asked for in the best trials."
    middle = median([of.positions[number] for number in best])
    nearest = min(best, key=lambda number: abs(of.positions[number] - middle))
    return f"{of.name}: the best fifth lies around {decimal(middle, 2)} of its range, near {of.labels[nearest]}."
