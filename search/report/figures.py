"""The report's pictures: SVG that takes its colours and font from the page, so it follows light, dark and print.

Matplotlib draws with placeholder colours, which are then replaced by CSS variables with the light colour as a fallback.
"""

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from search.report.blocks import Figure, counted, decimal
from search.report.collect import FinalEvaluation, RunInfo, Trials
from search.report.tables import LABELS, chosen_trial

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Placeholder -> CSS variable and its light value. Series colours follow Okabe and Ito (2008), which readers
# with any colour vision tell apart; its pale ones are darkened to be seen on paper.
INK, QUIET, GRID = "#010101", "#020202", "#030303"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005", "#0a0006")
THEME = {
    INK: ("ink", "#1c1b19"),
    QUIET: ("quiet", "#8a857d"),
    GRID: ("grid", "#dedad3"),
    SERIES[0]: ("series-0", "#0072b2"),
    SERIES[1]: ("series-1", "#d55e00"),
    SERIES[2]: ("series-2", "#00805f"),
    SERIES[3]: ("series-3", "#b0568b"),
    SERIES[4]: ("series-4", "#45423d"),
    SERIES[5]: ("series-5", "#946a00"),
}
LINE_STYLES = ("-", "--", "-.", (0, (1, 1.2)), (0, (7, 1.5, 1, 1.5, 1, 1.5)))
SIZE_INCHES = (5.4, 3.3)
# The share of values that fits into a frame; a few first epochs far off would flatten all the rest.
SHOWN_SHARE = 0.93
CURVES_KEY = (
    "Thick line: the best trial, its best epoch dotted. Thin coloured lines: other complete trials. Grey lines: trials "
    "stopped early, a circle where; a cross: failed. Dotted verticals: rungs, where trials are compared."
)


def progress(trials: Trials, info: RunInfo) -> Figure | None:
    """Best value so far against epochs spent, a line a backbone; None without a single value."""
    paths = {name: _best_so_far(_valid_curves(trials, name), info) for name in trials.backbones}
    paths = {name: path for name, path in paths.items() if path[1]}
    if not paths:
        return None
    metric = LABELS.get(info.objective, info.objective)
    with _axes() as axes:
        for index, name in enumerate(trials.backbones):
            if name in paths:
                x, y = paths[name]
                axes.step(x, y, where="post", color=_series(index), linestyle=_dashes(index), linewidth=1.8)
        _name_lines(axes, {trials.backbones.index(name): name for name in paths}, info)
        limits = _limits([value for _, ys in paths.values() for value in ys], info, shown=0.8)
        axes.set(
            xlabel="Epochs spent, in the order of the trials", ylabel=f"Best validation {metric} so far", ylim=limits
        )
        axes.set_xlim(left=0)
        svg = _svg(axes, "progress")
    words = [
        f"{name}: {decimal(y[0], 4)} after {counted(x[0], 'epoch')}, {decimal(y[-1], 4)} after {x[-1]:,}."
        for name, (x, y) in paths.items()
    ]
    better = "lower" if info.direction == "min" else "higher"
    title = f"Best validation {metric} so far against training epochs spent ({better} is better)"
    return Figure("progress", title, svg, " ".join(words))


def _valid_curves(trials: Trials, backbone: str) -> "pd.DataFrame":
    """A backbone's epochs; those of failed trials count as spent, but their values are no one's best."""
    own, table = trials.curves[trials.curves["backbone"] == backbone], trials.table
    failed = table["trial"][(table["backbone"] == backbone) & (table["state"] == "FAIL")]
    return own.assign(value=own["value"].where(~own["trial"].isin(failed)))


def _best_so_far(curves: "pd.DataFrame", info: RunInfo) -> tuple[list[int], list[float]]:
    """Where the best value changes: epochs spent and value; ends at the last epoch."""
    spent: list[int] = []
    values: list[float] = []
    better = min if info.direction == "min" else max
    ordered = curves.sort_values(["trial", "epoch"], kind="stable")["value"].tolist()
    for count, value in enumerate(ordered, start=1):
        if math.isfinite(value) and (not values or (value != values[-1] and better(value, values[-1]) == value)):
            spent.append(count)
            values.append(value)
    if values and spent[-1] < len(ordered):
        spent.append(len(ordered))
        values.append(values[-1])
    return spent, values


def learning_curves(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> tuple[Figure, ...]:
    """Validation objective of every trial against its epochs, a picture a backbone, all on the same axes."""
    curves = trials.curves[trials.curves["value"].map(math.isfinite)]
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
            best = chosen_trial(trials, backbone, finals, info)
            drawn.append(_curves_figure(backbone, index, lines, best, limits, info))
    return tuple(drawn)


Line = tuple[list[int], list[float], str]


def _curves_figure(
    backbone: str, index: int, lines: dict[Any, Line], best: int | None, limits: tuple[float, float], info: RunInfo
) -> Figure:
    metric, color = LABELS.get(info.objective, info.objective), _series(index)
    ends = {state: [(x[-1], y[-1]) for x, y, of in lines.values() if of == state] for state in ("PRUNED", "FAIL")}
    with _axes() as axes:
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
        svg = _svg(axes, f"curves-{index}")
    return Figure(
        f"curves-{index}", f"{backbone}: validation {metric} against epochs", svg, _words(lines, best, limits)
    )


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

    ticks = sorted({1, *info.rungs, info.max_epochs})
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(0.93, max(info.max_epochs, 2) * 1.07)


def _limits(values: list[float], info: RunInfo, *, shown: float) -> tuple[float, float]:
    """A frame from the best value to the worst of the `shown` best share, with a margin."""
    ordered = sorted(values, reverse=info.direction == "max")
    best, worst = ordered[0], ordered[math.ceil(shown * len(ordered)) - 1]
    margin = 0.06 * abs(worst - best) or 0.05 * abs(best) or 0.05
    return min(best, worst) - margin, max(best, worst) + margin


def _name_lines(axes: "Axes", names: dict[int, str], info: RunInfo) -> None:
    """A legend in the corner that the lines leave free: they start far from the best value and end near it."""
    for index, name in names.items():
        axes.plot([], [], color=_series(index), linestyle=_dashes(index), linewidth=1.8, label=f" {_clipped(name)}")
    axes.legend(frameon=False, loc="upper right" if info.direction == "min" else "lower right", handlelength=2.6)


def _clipped(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:18]}…{name[-11:]}"


def _dashes(index: int) -> Any:
    return LINE_STYLES[index % len(LINE_STYLES)]


def _series(index: int) -> str:
    return SERIES[index % len(SERIES)]


@contextmanager
def _axes() -> "Iterator[Axes]":
    """Axes of a figure of its own, in the report's style; draw and save inside the block."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    style: Any = {
        "svg.fonttype": "none", "text.parse_math": False, "font.size": 10, "axes.unicode_minus": True,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK,
        "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.linewidth": 0.7, "axes.grid": True,
        "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True,
        "font.family": "DejaVu Sans", "path.simplify": False,
    }  # fmt: skip
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # The browser draws the text, with fonts of its own: what DejaVu Sans lacks only costs a little spacing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Canvas(figsize=SIZE_INCHES, layout="constrained").add_subplot()


def _svg(axes: "Axes", key: str) -> str:
    """The figure as an SVG element without ids of its own that could meet another figure's."""
    import matplotlib

    figure, buffer = axes.get_figure(root=True), io.StringIO()
    assert figure is not None
    with matplotlib.rc_context({"svg.hashsalt": f"galaxy-{key}"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: var(--sans, sans-serif)")
    for length in ("width", "height"):
        text = re.sub(rf'(<svg\b[^>]*?) {length}="[^"]*"', r"\1", text, count=1)
    for placeholder, (name, light) in THEME.items():
        text = text.replace(placeholder, f"var(--{name}, {light})")
    return re.sub(r"\n\s*\n+", "\n", text).strip() + "\n"
