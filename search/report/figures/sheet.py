"""A contact sheet: the test galaxies that a backbone answers worst, on one picture."""

import io

import numpy as np
from numpy.typing import NDArray

from galaxy_models.errors import GalaxyError
from search.report.blocks import percent
from search.report.evidence.standing import Standing
from search.report.figures.gallery import test_images
from search.report.figures.style import PNG_DPI, canvas, clipped
from search.report.findings import Findings

COLUMNS, ROWS = 6, 5
TILE_INCHES = (1.55, 1.85)


def mean_answers(standing: Standing) -> NDArray[np.float64]:
    """What a backbone answers, mean over seeds: (N, A)."""
    mean: NDArray[np.float64] = np.mean([one.outputs for one in standing.answers], axis=0, dtype=np.float64)
    return mean


def worst_answers(standing: Standing, *, votes: bool, most: int) -> NDArray[np.int64]:
    """Rows of the galaxies that are answered worst, the worst first, by the mean over seeds.

    Args:
        standing: a backbone with answers.
        votes: its answers are vote fractions, of which the squared error counts; else classes, of which wrong ones
            count, the less likely the true class is, the worse.
        most: rows at most.
    """
    mean, targets = mean_answers(standing), standing.answers[0].targets
    if votes:
        badness = ((mean - targets) ** 2).mean(axis=1)
        rows = np.arange(len(mean))
    else:
        badness = -mean[np.arange(len(mean)), targets]
        rows = np.flatnonzero(mean.argmax(axis=1) != targets)
    order = np.argsort(-badness[rows], kind="stable")[:most]
    chosen: NDArray[np.int64] = rows[order]
    return chosen


def contact_sheet(findings: Findings, standing: Standing) -> bytes | None:
    """A PNG of the worst mistakes with what was asked and answered; None without answers, mistakes or shards.

    Args:
        findings: the run.
        standing: one of its backbones.
    """
    if not standing.answers:
        return None
    rows = worst_answers(standing, votes=findings.info.task.kind == "votes", most=COLUMNS * ROWS)
    ids = [str(standing.answers[0].ids[row]) for row in rows]
    try:
        images = test_images(findings, ids)
    except GalaxyError:
        return None
    tiles = [(images[name], f"{_words(findings, standing, row)}\n{clipped(name, 22)}")
             for row, name in zip(rows, ids, strict=True) if name in images]  # fmt: skip
    return _drawn(tiles) if tiles else None


def _words(findings: Findings, standing: Standing, row: int) -> str:
    """What the galaxy is and what it was taken for, each with its probability; for votes the RMSE of its fractions."""
    mean, target = mean_answers(standing)[row], standing.answers[0].targets[row]
    if findings.info.task.kind == "votes":
        return f"RMSE {float(((mean - target) ** 2).mean() ** 0.5):.3f}"
    given, names = int(mean.argmax()), [clipped(name, 16) for name in findings.info.task.names]
    return f"{names[target]} {percent(mean[target])}\nas {names[given]} {percent(mean[given])}"


def _drawn(tiles: list[tuple[NDArray[np.uint8], str]]) -> bytes:
    num_rows = -(-len(tiles) // COLUMNS)
    png = io.BytesIO()
    with canvas(inches=(COLUMNS * TILE_INCHES[0], num_rows * TILE_INCHES[1])) as figure:
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.3 / num_rows, wspace=0.06, hspace=0.45)
        panels = figure.subplots(num_rows, COLUMNS, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
        for axes, (pixels, words) in zip(panels, tiles, strict=False):
            axes.imshow(pixels)
            axes.set_title(words, fontsize=6.5, pad=2)
        figure.savefig(png, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    return png.getvalue()
