"""Initial weights: how trials did by how much of the network they trained."""

from search.report.blocks import Figure, counted, decimal
from search.report.comparable import KINDS, median
from search.report.figures.style import INK, finished, series, single_axes
from search.report.findings import Findings


def transfer_figure(findings: Findings, backbone: str, epochs: int, groups: dict[str, list[float]]) -> Figure:
    """Values after the same number of epochs, a dot a trial, the median as a line."""
    color = series(findings.color(backbone))
    kinds = [kind for kind in KINDS if kind in groups]
    with single_axes() as axes:
        for place, kind in enumerate(kinds):
            values = sorted(groups[kind])
            # Spread sideways by rank, so that dots of equal value stay apart.
            xs = [place + 0.26 * ((3 * rank) % 7 - 3) / 3 for rank in range(len(values))]
            axes.plot(xs, values, "o", color=color, markersize=4, alpha=0.55, mew=0)
            middle = median(values)
            axes.plot([place - 0.33, place + 0.33], [middle, middle], color=INK, linewidth=1.6)
        axes.set_xticks(range(len(kinds)), [f"{kind}\n({len(groups[kind])})" for kind in kinds])
        axes.set_xlim(-0.6, len(kinds) - 0.4)
        axes.set_ylabel(f"Validation {findings.objective}")
        words = [
            f"{kind}: median {decimal(median(groups[kind]), 4)} of {counted(len(groups[kind]), 'trial')}."
            for kind in kinds
        ]
        title = (
            f"{backbone}: best validation {findings.objective} within {counted(epochs, 'epoch')}, "
            "by how much of the network was trained"
        )
        return finished(axes, f"transfer-{findings.color(backbone)}", title=title, text=" ".join(words))
