"""Several runs on one page: surveys or dates side by side.

Numbers are compared where they are of the same test galaxies, and nowhere else.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from search.report import numbers, verdict
from search.report.blocks import Block, Figures, Page, Paragraph, Section, Table, counted, duration, listed, whole
from search.report.collect import collect
from search.report.evidence.pairs import compare
from search.report.evidence.standing import Evidence, Standing, ranked
from search.report.figures import results
from search.report.findings import Findings
from search.report.tables import scores
from search.report.write import csv_bytes, write_page


def write_joint_report(runs: Sequence[Findings], folder: Path) -> Path:
    """Write a page that compares runs.

    Args:
        runs: at least two.
        folder: where the files go.

    Returns:
        Path of `report.html`.
    """
    import pandas as pd

    surveys = by_survey(runs)
    tables = {"scores": numbers.score_table, "costs": numbers.cost_table, "pairs": numbers.pair_table}
    files = {}
    for name, make in tables.items():
        parts = [make(one) for one, _ in surveys]
        for part, (one, _) in zip(parts, surveys, strict=True):
            part.insert(0, "survey_digest", one.info.survey_digest)
        files[f"{name}.csv"] = csv_bytes(pd.concat(parts))
    return write_page(folder, joint_page(runs, surveys), files)


def by_survey(runs: Sequence[Findings]) -> list[tuple[Findings, list[Findings]]]:
    """For each survey, its runs as if they were one, and its runs."""
    groups: dict[str, tuple[list[Findings], list[str]]] = {}
    for run, label in zip(runs, run_labels(runs), strict=True):
        members, labels = groups.setdefault(run.info.survey_digest, ([], []))
        members.append(run)
        labels.append(label)
    return [(_joined(members, labels), members) for members, labels in groups.values()]


def joint_page(runs: Sequence[Findings], surveys: Sequence[tuple[Findings, list[Findings]]]) -> Page:
    """The page as data: a section for each survey, and one of the runs.

    Args:
        runs: all of them.
        surveys: what `by_survey` made of them.
    """
    labels = run_labels(runs)
    sections = tuple(
        Section(f"survey-{place}", _survey_name(one), _survey(one, members))
        for place, (one, members) in enumerate(surveys)
    )
    return Page(
        title=f"Galaxy Search: {counted(len(runs), 'run')}",
        subtitle=f"{listed(tuple(labels))} · {counted(len(surveys), 'survey')}",
        answer=tuple(f"{_survey_name(one)}: {_answer(one, members)}" for one, members in surveys),
        cautions=_cautions(surveys, dict(zip(map(id, runs), labels, strict=True))),
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
    problems = [problem for run in runs for problem in run.evidence.problems]
    standings = _of_the_same_galaxies(standings if _mixed(runs) else ranked(standings, info), problems)
    evidence = Evidence({one.backbone: one for one in standings}, tuple(problems))
    trials = dataclasses.replace(collect([]), backbones=tuple(backbones))
    pairs = compare(evidence.standings, info)
    return Findings(run_dir=runs[0].run_dir, info=info, trials=trials, evidence=evidence, pairs=pairs)


def _of_the_same_galaxies(standings: list[Standing], problems: list[str]) -> list[Standing]:
    """Leave out what answered for other test galaxies than the first: a digest can be copied, galaxies are compared."""
    kept: list[Standing] = []
    for one in standings:
        other = next((known for known in kept if known.answers), None)
        if one.answers and other is not None and not one.answers[0].same_galaxies(other.answers[0]):
            problems.append(
                f"{one.backbone} answered for other test galaxies than {other.backbone}, although both name the same "
                "survey: it is left out."
            )
        else:
            kept.append(one)
    return kept


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
    text = f"Digest {one.info.survey_digest[:19]}…; {counted(len(runs), 'run')} of this survey. {order}".strip()
    blocks: list[Block | None] = [
        Paragraph(text),
        scores.comparison(one, ordered=not _mixed(runs)),
        scores.questions(one),
        Figures(tuple(dataclasses.replace(item, key=f"{item.key}-{_key(one)}") for item in drawn)) if drawn else None,
        scores.pairs(one),
    ]
    return tuple(block for block in blocks if block is not None)


def _key(one: Findings) -> str:
    return "".join(letter for letter in one.info.survey_digest[-8:] if letter.isalnum())


def _cautions(surveys: Sequence[tuple[Findings, Sequence[Findings]]], labels: Mapping[int, str]) -> tuple[str, ...]:
    """What weakens the answers: of the runs together, then of each by its label."""
    found: list[str] = []
    if len(surveys) > 1:
        found.append(
            f"These runs are of {len(surveys)} surveys with different test galaxies. Their numbers stand in separate "
            "tables and are not ranked together: a higher score may only mean easier galaxies."
        )
    for one, runs in surveys:
        own = [f"{labels[id(run)]}: {words}" for run in runs for words in verdict.cautions(run)]
        known = {words for run in runs for words in run.evidence.problems}
        found += [*own, *(words for words in one.evidence.problems if words not in known)]
    return tuple(dict.fromkeys(found))


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
