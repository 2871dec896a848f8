"""What the survey holds of each class, and how well each class is found."""

import math

import numpy as np

from search.report.blocks import DASH, Table, decimal, interval, percent, whole
from search.report.evidence.classes import confusion
from search.report.evidence.scores import NUM_BINS
from search.report.evidence.standing import CHANCE_ECE, SPLITS, UNBIASED_ECE, Standing
from search.report.findings import Findings


def class_counts(findings: Findings) -> Table | None:
    """Galaxies of each class in each split; None for a survey of votes."""
    info = findings.info
    counts = {split: info.class_counts.get(SPLITS[split], ()) for split in SPLITS}
    if not any(counts.values()):
        return None
    total = sum(sum(of_split) for of_split in counts.values())
    groups = []
    for index, name in enumerate(info.task.names):
        of_class = [of_split[index] if of_split else 0 for of_split in counts.values()]
        share = percent(sum(of_class) / total) if total else DASH
        groups.append((name, ((*map(whole, of_class), share),)))
    note = "The split depends on each galaxy's id alone."
    if findings.majority is not None:
        name, right = findings.majority
        note = f"Majority baseline: always answering {name} is right for {percent(right)} of the test split."
    sizes = tuple(whole(sum(of_split)) for of_split in counts.values())
    groups.append(("all", ((*sizes, percent(1.0) if total else DASH),)))
    return Table(
        caption="Galaxies of each class",
        columns=("Class", "Train", "Validation", "Test", "Share of all"), groups=tuple(groups), note=note,
    )  # fmt: skip


def per_class(findings: Findings, standing: Standing, *, folded: bool) -> Table:
    """Recall, precision and F1 of one backbone for each class, with intervals."""
    table = confusion(standing)
    galaxies, answered = table.sum(axis=1), table.sum(axis=0)
    groups = []
    for index, name in enumerate(findings.info.task.names):
        found = [standing.estimate("test", f"{score}:{index}") for score in ("recall", "precision", "f1")]
        cells = (
            whole(galaxies[index]),
            f"{answered[index]:,.1f}".removesuffix(".0"),
            *(_with_interval(one.value, (one.low, one.high)) for one in found),
        )
        groups.append((name, (cells,)))
    return Table(
        caption=f"{standing.backbone}: how well each class is found among the test galaxies",
        columns=("Class", "Galaxies", "Answered", "Recall", "Precision", "F1"),
        groups=tuple(groups),
        folded=folded,
        note="Recall: share of the class's galaxies that are given it. Precision: share of the answers that are right. "
        "Means over seeds, with 95 % intervals below: Wilson's for recall and precision, bootstrap for F1. "
        "Answered: galaxies that are given the class, mean over seeds.",
    )


def recalls(findings: Findings) -> Table | None:
    """Recall of each class by every backbone, side by side."""
    names = [name for name, one in findings.standings.items() if one.answers]
    counts = findings.info.class_counts.get("test", ())
    if len(names) < 2 or not counts:
        return None
    tables = {name: confusion(findings.standings[name]) for name in names}
    groups = []
    for index, label in enumerate(findings.info.task.names):
        cells = [decimal(_recall(tables[name], index)) for name in names]
        groups.append((label, ((whole(counts[index]), *cells),)))
    return Table(
        caption="Recall of each class by every backbone, on the test galaxies",
        columns=("Class", "Galaxies", *names),
        groups=tuple(groups),
        note="Means over seeds. The tables of single backbones have the intervals.",
    )


def _recall(table: np.ndarray, index: int) -> float:
    total = table[index].sum()
    return float(table[index, index] / total) if total else math.nan


def _with_interval(value: float, bounds: tuple[float, float]) -> str:
    text = interval(*bounds)
    return f"{decimal(value)}\n{text}" if text and math.isfinite(value) else decimal(value)


def calibration(findings: Findings) -> Table | None:
    """The calibration error of each backbone on the test galaxies, what chance adds to it, and what then remains."""
    groups = []
    for backbone, standing in findings.standings.items():
        unbiased = standing.estimate("test", UNBIASED_ECE)
        if not math.isfinite(unbiased.high):
            continue
        cells = (
            decimal(standing.value("test", "ece")),
            decimal(standing.value("test", CHANCE_ECE)),
            decimal(unbiased.value),
            interval(unbiased.low, unbiased.high),
        )
        groups.append((backbone, (cells,)))
    if not groups:
        return None
    return Table(
        caption=f"Calibration error on the {findings.info.split_sizes.get('test', 0):,} test galaxies, and how much of "
        "it is chance",
        columns=("Backbone", "ECE", "ECE if calibrated", "Freed of bias", "95 % interval"),
        groups=tuple(groups),
        note=f"ECE: mean gap between confidence and share of right answers over {NUM_BINS} bins, mean over seeds. Even "
        "a calibrated network shows gaps on a finite number of galaxies, on average as large as the second number: "
        "ECE is biased upwards. The third number is the error of which this ECE is the median. An interval that begins "
        "at 0 holds a network without any error. On simulated test sets of 120 to 2,000 galaxies the intervals held "
        "the true error in 91 to 99 of 100, that of a calibrated network in 94 to 99; on 60 galaxies a calibrated one "
        "was missed, from above, in up to 18.",
    )
