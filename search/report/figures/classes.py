"""Confusion matrices and calibration, a picture a backbone."""

import math
from typing import TYPE_CHECKING

import numpy as np

from galaxy_models.morphology.tree import GZ2
from search.report.blocks import Figure, decimal, percent
from search.report.evidence.classes import Reliability, class_reliability, confusion, vote_reliability
from search.report.evidence.standing import Standing
from search.report.figures.style import INK, QUIET, canvas, clipped, finished, series, single_axes
from search.report.findings import Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Beyond this, numbers in cells are too small to read.
MAX_CLASSES = 20
# The darkest cell still leaves its number legible.
DARKEST = 0.55


def confusions(findings: Findings) -> tuple[Figure, ...]:
    """Shares of each true class that are given each class, averaged over seeds."""
    names = findings.info.task.names
    if len(names) > MAX_CLASSES:
        return ()
    return tuple(_confusion(findings, standing) for standing in findings.standings.values() if standing.answers)


def _confusion(findings: Findings, standing: Standing) -> Figure:
    from matplotlib.patches import Rectangle

    names, counts = findings.info.task.names, confusion(standing)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    size = len(names)
    side = min(7.0, 2.2 + 0.55 * size)
    with canvas(inches=(side + 0.6, side), layout="constrained") as figure:
        axes = figure.add_subplot()
        color = series(findings.color(standing.backbone))
        for row, column in np.ndindex(size, size):
            share = shares[row, column]
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, alpha=DARKEST * share, linewidth=0)
            )
            if counts[row, column]:
                text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
                weight = "bold" if row == column else "normal"
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color=INK, weight=weight)
        labels = [clipped(name, 16) for name in names]
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="Answered", ylabel="True class")
        axes.set_xticks(range(size), labels, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), [f"{one} ({total:,.0f})" for one, total in zip(labels, totals[:, 0], strict=True)])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        title = f"{standing.backbone}: test galaxies of each class (rows, with their number) by answer, in % of the row"
        key = f"confusion-{findings.color(standing.backbone)}"
        return finished(axes, key, title=title, text=_confusion_words(names, counts))


def _confusion_words(names: tuple[str, ...], counts: np.ndarray) -> str:
    off = counts.copy()
    np.fill_diagonal(off, 0)
    words = []
    for cell in np.argsort(-off, axis=None, kind="stable")[:3]:
        true, given = divmod(int(cell), len(names))
        if off[true, given] > 0:
            share = off[true, given] / counts[true].sum()
            words.append(f"{percent(share)} of {names[true]} are taken for {names[given]}.")
    return " ".join(words) or "No test galaxy is taken for another class."


def reliabilities(findings: Findings) -> tuple[Figure, ...]:
    """Share of right answers against confidence; for votes, volunteers' against predicted fractions by question."""
    complete = [one for one in findings.standings.values() if one.answers]
    if findings.info.task.kind == "classes":
        return tuple(_class_reliability(findings, one) for one in complete)
    if findings.info.task.names != GZ2.columns:
        return ()
    return tuple(_question_reliability(findings, one) for one in complete[:1])


def _class_reliability(findings: Findings, standing: Standing) -> Figure:
    found, ece = class_reliability(standing), standing.value("test", "ece")
    with single_axes() as axes:
        _diagonal(axes)
        _draw(axes, found, series(findings.color(standing.backbone)))
        axes.set(xlabel="Confidence: probability of the answer", ylabel="Share of right answers")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        largest = int(np.argmax(found.counts))
        text = (
            f"ECE {decimal(ece)}. Most answers, {percent(found.counts[largest] / found.counts.sum())}, have a "
            f"mean confidence of {percent(found.predicted[largest])}, and "
            f"{percent(found.observed[largest])} of them are right."
        )
        title = f"{standing.backbone}: share of right test answers against confidence (ECE {decimal(ece)})"
        return finished(axes, f"reliability-{findings.color(standing.backbone)}", title=title, text=text)


def _question_reliability(findings: Findings, standing: Standing) -> Figure:
    color, words = series(findings.color(standing.backbone)), []
    with canvas(inches=(9.0, 6.6)) as figure:
        figure.subplots_adjust(left=0.09, right=0.99, bottom=0.08, top=0.95, wspace=0.2, hspace=0.32)
        panels = figure.subplots(3, 4, sharex=True, sharey=True).ravel()
        for axes, question in zip(panels, GZ2.questions, strict=False):
            found = vote_reliability(standing, question.columns)
            _diagonal(axes)
            _draw(axes, found, color)
            axes.set_title(f"{question.number} {question.name.replace('_', ' ')}", fontsize=9)
            axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
            gaps = np.abs(found.predicted - found.observed)
            gap = float(np.nansum(gaps * found.counts) / found.counts.sum())
            words.append(f"{question.name.replace('_', ' ')} {gap:.3f}")
        panels[-1].set_axis_off()
        figure.supxlabel("Predicted vote fraction", fontsize=10)
        figure.supylabel("Mean vote fraction of the volunteers", x=0.005, fontsize=10)
        title = f"{standing.backbone}: volunteers' against predicted vote fractions on the test galaxies, by question"
        text = f"Mean gap between the two: {', '.join(words)}."
        return finished(figure, "reliability-questions", title=title, text=text)


def _diagonal(axes: "Axes") -> None:
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))


def _draw(axes: "Axes", found: Reliability, color: str) -> None:
    filled = found.counts > 0
    largest = max(int(found.counts.max()), 1)
    sizes = [14 + 90 * math.sqrt(count / largest) for count in found.counts[filled]]
    axes.plot(found.predicted[filled], found.observed[filled], color=color, linewidth=1.2)
    axes.scatter(found.predicted[filled], found.observed[filled], s=sizes, color=color, linewidths=0)
