"""Accuracy against what an answer costs."""

import math
from collections.abc import Sequence

from search.report.blocks import Figure, decimal, listed, percent, percent_interval
from search.report.evidence.standing import Standing
from search.report.figures.style import INK, QUIET, clipped, finished, marker, series, single_axes
from search.report.findings import Findings

# What an answer costs: key, axis label, title, and whether more is better.
COSTS = (
    ("images_per_s", "Images answered per second (logarithmic)", "speed of answering, in images per second", True),
    ("flops", "Floating-point operations per image, in 10⁹ (logarithmic)", "10⁹ floating-point operations", False),
)


def cost_of(standing: Standing, key: str) -> float:
    """Mean over seeds of a cost; 10⁹ operations for `flops`; NaN where it is unknown."""
    found = [getattr(run, key) for run in standing.runs]
    values = [math.nan if value is None else float(value) for value in found]
    return math.fsum(values) / len(values) / (1e9 if key == "flops" else 1.0)


def trade_offs(findings: Findings) -> tuple[Figure, ...]:
    """Test score with its interval against each cost that is known, with the Pareto front."""
    return tuple(figure for cost in COSTS if (figure := _trade_off(findings, *cost)) is not None)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both coordinates, larger being better, by the first coordinate."""
    front = []
    best = -math.inf
    for index in sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1])):
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front[::-1]


def _trade_off(findings: Findings, key: str, label: str, title: str, more: bool) -> Figure | None:
    votes = findings.info.task.kind == "votes"
    score = "rmse" if votes else "accuracy"
    shown = [
        (one, x, estimate)
        for one in findings.standings.values()
        for x, estimate in [(cost_of(one, key), one.estimate("test", score))]
        if math.isfinite(x) and x > 0 and math.isfinite(estimate.value)
    ]
    if not shown:
        return None
    sign = (1.0 if more else -1.0, -1.0 if votes else 1.0)
    front = pareto_front([(sign[0] * math.log(x), sign[1] * found.value) for _, x, found in shown])
    with single_axes() as axes:
        line = sorted((shown[index][1], shown[index][2].value) for index in front)
        axes.plot(*zip(*line, strict=True), color=QUIET, linewidth=1.0, linestyle=(0, (4, 3)))
        for one, x, found in shown:
            place = findings.color(one.backbone)
            if math.isfinite(found.low):
                axes.plot([x, x], [found.low, found.high], color=series(place), linewidth=1.3)
            axes.plot([x], [found.value], marker(place), color=series(place), markersize=6)
            axes.annotate(
                clipped(one.backbone, 22), (x, found.value), xytext=(7, 4), textcoords="offset points", color=INK
            )
        axes.set_xscale("log")
        _widen(axes, [x for _, x, _ in shown])
        axes.set(xlabel=label, ylabel="Test RMSE" if votes else "Test accuracy")
        words = [
            f"{one.backbone}: {_score(found.value, votes)}"
            + (f" ({_bounds(found.low, found.high, votes)})" if math.isfinite(found.low) else "")
            + f" at {f'{x:,.0f}' if more else f'{x:.3g}'}."
            for one, x, found in shown
        ]
        names = listed(tuple(shown[index][0].backbone for index in front))
        words.append(f"On the front, where no other is both better and cheaper: {names}.")
        head = "Test RMSE (lower is better)" if votes else "Test accuracy"
        full = f"{head}, with its 95 % interval, against {title}; dashed: the Pareto front"
        return finished(axes, f"cost-{key.replace('_', '-')}", title=full, text=" ".join(words))


def _score(value: float, votes: bool) -> str:
    return decimal(value, 4) if votes else percent(value)


def _bounds(low: float, high: float, votes: bool) -> str:
    return f"{low:.4f} to {high:.4f}" if votes else percent_interval(low, high)


def _widen(axes: object, xs: list[float]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    assert hasattr(axes, "set_xlim")
    assert hasattr(axes, "xaxis")
    low, high = min(xs), max(xs)
    axes.set_xlim(low / 1.5, high * max(2.2, (high / low) ** 0.35))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
