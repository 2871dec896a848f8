"""The comparison: every score of every backbone on every split, with intervals and the spread over seeds."""

import math

from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import METRICS
from search.report.blocks import Table, counted, decimal, interval, listed, p_value, percent, signed, whole
from search.report.evidence.questions import question_estimates
from search.report.evidence.standing import AVERAGED, Estimate, Standing
from search.report.findings import LABELS, Findings

ROWS = {
    "train": ("train", "train"),
    "validation": ("validation", "val"),
    "test": ("test", "test"),
    AVERAGED: ("averaged", "test"),
}
TEST_ROW = 2
METRICS_NOTE = (
    "Each number is a mean over the seeds with which the chosen configuration was trained again, ± their standard "
    "deviation; below it the 95 % interval over galaxies (bootstrap). “Averaged”: answers averaged over the eight "
    "symmetries of the image. Precision, recall and F1 are means over classes, as is AUROC (each class against the "
    "rest). NLL: negative log-likelihood per galaxy. ECE: expected calibration error in 15 bins; on few galaxies it is "
    "too large by chance, so its interval is that of the error freed of this bias, and may lie below the number (see "
    "Calibration). {}"
)
ORDERED = "Ordered by the validation objective."
VOTES_NOTE = (
    "RMSE over the {} vote fractions: mean over the seeds with which the chosen configuration was trained again, ± "
    "their standard deviation; below it the 95 % interval over galaxies (bootstrap). “Averaged”: answers averaged "
    "over the eight symmetries of the image. {}"
)


def comparison(findings: Findings, *, ordered: bool = True) -> Table:
    """Every metric on every split, four rows a backbone, and the baseline.

    Args:
        findings: the run, or several of one survey.
        ordered: whether the backbones stand by the validation objective.
    """
    info = findings.info
    metrics = sorted(METRICS[info.task.kind], key=lambda name: name == "nll")
    groups = []
    for backbone in findings.order:
        standing = findings.standings.get(backbone)
        rows = tuple(
            (f"{label} ({info.split_sizes.get(split, 0):,})", *(score_cell(standing, row, name) for name in metrics))
            for row, (label, split) in ROWS.items()
        )
        groups.append((backbone, rows))
    groups += _baseline(findings, metrics)
    order = ORDERED if ordered else ""
    note = (
        METRICS_NOTE.format(order) if info.task.kind == "classes" else VOTES_NOTE.format(info.task.num_outputs, order)
    )
    note = f"{_seeds(findings)} {note}".strip()
    return Table(
        caption="Scores of each backbone, trained again, on every split",
        columns=("Backbone", "Galaxies", *(LABELS[name] for name in metrics)),
        groups=tuple(groups), text_columns=1, strong=TEST_ROW, note=note,
    )  # fmt: skip


def _seeds(findings: Findings) -> str:
    """With how many seeds each backbone was trained again."""
    counts = {name: len(one.runs) for name, one in findings.standings.items()}
    if not counts:
        return ""
    if len(set(counts.values())) == 1:
        return f"{counted(next(iter(counts.values())), 'seed')} each."
    return listed(tuple(f"{name}: {counted(number, 'seed')}" for name, number in counts.items())) + "."


def score_cell(standing: Standing | None, row: str, name: str) -> str:
    """A score, its spread over seeds, and on a second line its interval."""
    found = standing.estimate(row, name) if standing else Estimate()
    return estimate_cell(found, 4 if name.startswith("rmse") else 3)


def estimate_cell(found: Estimate, digits: int) -> str:
    """An estimate in a cell: value ± spread over seeds, and its interval on a second line."""
    value = decimal(found.value, digits)
    if math.isfinite(found.value) and math.isfinite(found.spread):
        value = f"{value} ± {decimal(found.spread, digits)}"
    bounds = interval(found.low, found.high, digits)
    return f"{value}\n{bounds}" if bounds else value


def _baseline(findings: Findings, metrics: list[str]) -> list[tuple[str, tuple[tuple[str, ...], ...]]]:
    label = f"test ({findings.info.split_sizes.get('test', 0):,})"
    if findings.info.baseline_rmse is not None:
        row = (label, decimal(findings.info.baseline_rmse, 4))
        return [("Always the mean of the training galaxies", (row,))]
    if findings.majority is None:
        return []
    name, share = findings.majority
    present = sum(count > 0 for count in findings.info.class_counts["test"])
    # What follows for a constant answer: right for its share, recall 1 for one of the present classes, and so on.
    seen = max(present, 1) if share else present + 1
    known = {
        "accuracy": share, "balanced_accuracy": 1 / present if share else 0.0, "precision": share / seen,
        "recall": (1.0 if share else 0.0) / seen, "f1": 2 * share / (1 + share) / seen, "auroc": 0.5,
    }  # fmt: skip
    cells = tuple(decimal(known.get(metric, math.nan)) for metric in metrics)
    return [(f"Always {name}", ((label, *cells),))]


def chosen(findings: Findings) -> Table | None:
    """What the selected trial scored in the search beside what its configuration scores when trained again."""
    groups = []
    for backbone, standing in findings.standings.items():
        searched = searched_value(findings, standing)
        again = standing.estimate("validation", findings.info.objective)
        spread = f" ± {decimal(again.spread, 4)}" if math.isfinite(again.spread) else ""
        sign = 1.0 if findings.info.direction == "min" else -1.0
        cells = (
            f"#{standing.trial}",
            decimal(searched, 4),
            f"{decimal(again.value, 4)}{spread}",
            signed(sign * (again.value - searched), 4),
            str(len(standing.runs)),
        )
        groups.append((backbone, (cells,)))
    if not groups:
        return None
    return Table(
        caption=f"How far being chosen flatters: validation {findings.objective} in the search and trained again",
        columns=("Backbone", "Trial", "In the search", "Trained again", "Worse by", "Seeds"),
        groups=tuple(groups),
        text_columns=1,
        note="The best of many trials owes part of its score to luck (the winner's curse). Trained again from other "
        "seeds it shows what the configuration is worth, but for the choice of the best epoch on the same galaxies; "
        "above 0 it does worse than the trial that was selected.",
    )


def searched_value(findings: Findings, standing: Standing) -> float:
    """The validation objective of the selected trial in the search; NaN if it is not there."""
    row = findings.trials.row(standing.backbone, standing.trial)
    return math.nan if row is None else float(row["value"])


def pairs(findings: Findings) -> Table | None:
    """Every two backbones on the same test galaxies."""
    if not findings.pairs:
        return None
    votes = findings.info.task.kind == "votes"
    digits = 4 if votes else 1
    scale, unit = (1.0, "") if votes else (100.0, " (points)")
    groups = []
    for pair in findings.pairs:
        low, high = (signed(scale * bound, digits) for bound in (pair.low, pair.high))
        seeds = decimal(scale * pair.seed_error, digits)
        cells = (
            "differ" if pair.differs else "not shown",
            f"{signed(scale * pair.difference, digits)}\n{low} to {high}",
            decimal(scale * pair.galaxy_error, digits),
            seeds,
            whole(pair.first_better),
            whole(pair.second_better),
            p_value(pair.p_value),
            p_value(pair.p_adjusted),
            p_value(pair.p_sign),
        )
        groups.append((f"{pair.first}, {pair.second}", (cells,)))
    score = "RMSE" if votes else "accuracy"
    return Table(
        caption=f"Every two backbones on the same {findings.info.split_sizes.get('test', 0):,} test galaxies",
        columns=(
            "Pair", "Beyond chance", f"Lead of the first in {score}{unit}", "Error over galaxies", "Error over seeds",
            "First better on", "Second better on", "p", "p after Holm", "p, sign test",
        ),
        groups=tuple(groups),
        text_columns=1,
        note="A pair differs if p after Holm's correction for the number of pairs is below 0.05. p: Welch's t test of "
        "the lead against both its standard errors, that over galaxies (paired bootstrap) and that over seeds; where a "
        f"backbone has one seed, over galaxies alone. Above 0 the first has the better {score}; below it the 95 % "
        "interval over galaxies. First, second better on: galaxies that one answers better, averaged over seeds; the "
        "exact sign test on these (for one seed and classes McNemar's) is there to compare.",
    )  # fmt: skip


def questions(findings: Findings) -> Table | None:
    """RMSE of the vote fractions of each question; None for other surveys than of the Galaxy Zoo 2 tree."""
    found = {name: question_estimates(one, findings.info) for name, one in findings.standings.items()}
    found = {name: estimates for name, estimates in found.items() if estimates}
    if not found:
        return None
    groups = []
    for question in GZ2.questions:
        cells = [estimate_cell(estimates[question.name], 4) for estimates in found.values()]
        groups.append((f"{question.number} {question.name.replace('_', ' ')}", ((question.text, *cells),)))
    return Table(
        caption="Test RMSE of the vote fractions of each question",
        columns=("Question", "As the volunteers read it", *found),
        groups=tuple(groups),
        text_columns=1,
        note="Over all answers of a question; cumulative fractions, so that rarely asked questions have small errors. "
        "Mean over seeds ± their standard deviation; below it the 95 % interval over galaxies (bootstrap).",
    )


def share_words(value: float, low: float, high: float) -> str:
    """An accuracy with its interval, such as `85.0 % (81.2 to 88.3 %)`."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{percent(value)} ({100 * low:.1f} to {100 * high:.1f} %)" if known else percent(value)
