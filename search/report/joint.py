"""Several runs on one page: surveys or dates side by side.

Numbers are compared where they are of the same test galaxies, and nowhere else.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from search.report import verdict
from search.report.blocks import Block, Figures, Page, Paragraph, Section, Table, counted, duration, listed, whole
from search.report.collect import collect
from search.report.evidence.pairs import compare
from search.report.evidence.standing import Evidence, Standing, ranked
from search.report.figures import results
from search.report.findings import Findings
from search.report.tables import scores
from search.report.write import write_page


def write_joint_report(runs: Sequence[Findings], folder: Path) -> Path:
    """Write a page that compares runs.

    Args:
        runs: at least two.
        folder: where the files go.

    Returns:
        Path of `report.html`.
    """
    return write_page(folder, joint_page(runs), {})


def joint_page(runs: Sequence[Findings]) -> Page:
    """The page as data: a section for each survey, and one of the runs."""
    labels = run_labels(runs)
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(run.info.survey_digest, []).append(index)
    surveys = [_joined([runs[index] for index in members], [labels[index] for index in members])
               for members in groups.values()]  # fmt: skip
    sections = tuple(
        Section(f"survey-{place}", _survey_name(one), _survey(one, [runs[index] for index in members]))
        for place, (one, members) in enumerate(zip(surveys, groups.values(), strict=True))
    )
    return Page(
        title=f"Galaxy Search: {counted(len(runs), 'run')}",
        subtitle=f"{listed(tuple(labels))} · {counted(len(surveys), 'survey')}",
        answer=tuple(
            f"{_survey_name(one)}: {_answer(one, [runs[index] for index in members])}"
            for one, members in zip(surveys, groups.values(), strict=True)
        ),
        cautions=_cautions(runs, surveys),
        sections=(*sections, Section("runs", "The runs", (_runs(runs, labels),))),
    )


def run_labels(runs: Sequence[Findings]) -> list[str]:
    """A name for each run; its folder's path where two share one."""
    names = [run.info.name for run in runs]
    return [name if names.count(name) == 1 else run.run_dir.as_posix() for name, run in zip(names, runs, strict=True)]


def _joined(runs: Sequence[Findings], labels: Sequence[str]) -> Findings:
    """Runs of one survey as if each backbone of each were one; their answers are for the same test galaxies."""
    standings: list[Standing] = []
    backbones: list[str] = []
    for run, label in zip(runs, labels, strict=True):
        names = {name: f"{label}: {name}" if len(runs) > 1 else name for name in run.order}
        standings += [dataclasses.replace(one, backbone=names[one.backbone]) for one in run.standings.values()]
        backbones += names.values()
    info = runs[0].info
    if not _mixed(runs):
        standings = ranked(standings, info)
    evidence = Evidence(
        {one.backbone: one for one in standings}, tuple(p for run in runs for p in run.evidence.problems)
    )
    trials = dataclasses.replace(collect([]), backbones=tuple(backbones))
    pairs = compare(evidence.standings, info)
    return Findings(run_dir=runs[0].run_dir, info=info, trials=trials, evidence=evidence, pairs=pairs)


def _survey_name(one: Findings) -> str:
    return f"{one.info.survey}, {one.info.split_sizes.get('test', 0):,} test galaxies"


def _answer(one: Findings, runs: Sequence[Findings]) -> str:
    if not one.standings:
        return "no backbone has been evaluated on the test split yet."
    if _mixed(runs):
        return "the runs optimised different objectives, so none leads; see below which of them differ."
    return verdict.which(one)


def _mixed(runs: Sequence[Findings]) -> bool:
    return len({run.info.objective for run in runs}) > 1


def _survey(one: Findings, runs: Sequence[Findings]) -> tuple[Block, ...]:
    drawn = results.trade_offs(one)
    order = (
        "The runs optimised different objectives, so backbones stand in the order of the runs, not of a score."
        if _mixed(runs)
        else ""
    )
    text = f"Digest {one.info.survey_digest}. {counted(len(runs), 'run')} of this survey. {order}".strip()
    blocks: list[Block | None] = [
        Paragraph(text),
        scores.comparison(one),
        scores.questions(one),
        Figures(tuple(dataclasses.replace(item, key=f"{item.key}-{_key(one)}") for item in drawn)) if drawn else None,
        scores.pairs(one),
    ]
    return tuple(block for block in blocks if block is not None)


def _key(one: Findings) -> str:
    return "".join(letter for letter in one.info.survey_digest[-8:] if letter.isalnum())


def _cautions(runs: Sequence[Findings], surveys: Sequence[Findings]) -> tuple[str, ...]:
    found = []
    if len(surveys) > 1:
        found.append(
            f"These runs are of {len(surveys)} surveys with different test galaxies. Their numbers stand in separate "
            "tables and are not ranked together: a higher score may only mean easier galaxies."
        )
    simulated = tuple(one.info.survey for one in surveys if one.info.simulated)
    if simulated:
        found.append(f"The sky of {listed(simulated)} is simulated: its numbers say little of real galaxies.")
    return (*found, *(problem for run in runs for problem in run.evidence.problems))


def _runs(runs: Sequence[Findings], labels: Sequence[str]) -> Table:
    groups = tuple(
        (
            label,
            (
                (
                    run.info.survey,
                    run.info.command,
                    run.info.sessions[0].started if run.info.sessions else "",
                    run.objective,
                    str(run.info.seed),
                    whole(len(run.trials.table)),
                    whole(run.trials.table["epochs"].sum()),
                    duration(run.info.elapsed_s),
                ),
            ),
        )
        for label, run in zip(labels, runs, strict=True)
    )
    columns = ("Run", "Survey", "Command", "Started", "Objective", "Seed", "Trials", "Epochs", "Took")
    return Table("What was run", columns, groups, text_columns=4)
