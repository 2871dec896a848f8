"""Puts the report's parts in the order in which a reader asks for them."""

import math

from search.report import verdict
from search.report.blocks import Block, Code, Figures, Page, Paragraph, Section, Table, counted, duration, listed, whole
from search.report.comparable import ENOUGH_TRIALS, Judged
from search.report.evidence.standing import SPLITS
from search.report.figures import classes, curves, gallery, parameters, results
from search.report.figures.transfer import transfer_figure
from search.report.findings import Findings
from search.report.tables import classes as class_tables
from search.report.tables import configs as config_tables
from search.report.tables import cost, scores, trials

# Slices and parallel coordinates are drawn for the leading backbones only: each takes a second.
NUM_DETAILED = 3


def build_page(findings: Findings, *, judged: Judged, configs: dict[str, dict[str, object]]) -> Page:
    """The whole report as data.

    Args:
        findings: the run.
        judged: what its trials of equal length say.
        configs: what `tables.configs.best_configs` gave.
    """
    info = findings.info
    sky = "simulated survey" if info.simulated else "survey"
    sections = (
        Section("comparison", "Comparison", _comparison(findings)),
        Section("cost", "Accuracy and cost", _cost(findings)),
        Section("differences", "Which differ", _differences(findings)),
        Section("classes", "Questions" if info.task.kind == "votes" else "Class by class", _classes(findings)),
        Section("calibration", "Calibration", _calibration(findings)),
        Section("mattered", "What mattered", _mattered(findings, judged)),
        Section("transfer", "Transfer learning", _transfer(findings, judged)),
        Section("time", "Where time and energy went", _time(findings)),
        Section("failures", "What stopped and what failed", _failures(findings)),
        Section("best", "Best configurations", _best(findings, configs)),
        Section("survey", "The survey", _survey(findings)),
        Section("reproduce", "How to reproduce it", _reproduce(findings)),
    )
    return Page(
        title=f"Galaxy Search: {info.name}",
        subtitle=f"{sky} {info.survey} · {_task(findings)} · {counted(len(findings.trials.backbones), 'backbone')} · "
        f"seed {info.seed}",
        answer=verdict.answer(findings),
        cautions=verdict.cautions(findings),
        sections=tuple(section for section in sections if section.blocks),
    )


def _task(findings: Findings) -> str:
    kind = "classes" if findings.info.task.kind == "classes" else "vote fractions"
    return f"{findings.info.task.num_outputs} {kind}"


def _present(*blocks: Block | None) -> tuple[Block, ...]:
    return tuple(block for block in blocks if block is not None)


def _comparison(findings: Findings) -> tuple[Block, ...]:
    if not findings.trials.backbones:
        return (Paragraph("No backbone was searched."),)
    return _present(
        scores.comparison(findings), cost.cost(findings), scores.questions(findings), scores.chosen(findings)
    )


def _cost(findings: Findings) -> tuple[Block, ...]:
    drawn = results.trade_offs(findings)
    return (Figures(drawn),) if drawn else ()


def _differences(findings: Findings) -> tuple[Block, ...]:
    table = scores.pairs(findings)
    if table is None:
        few = len(findings.standings) < 2
        why = "it takes two backbones with a final evaluation" if few else "answers for single galaxies are missing"
        return (Paragraph(f"No backbones are compared galaxy by galaxy: {why}."),)
    differ = [pair for pair in findings.pairs if pair.differs]
    words = [f"{pair.better} and {pair.first if pair.better == pair.second else pair.second}" for pair in differ]
    score = "RMSE" if findings.info.task.kind == "votes" else "accuracy"
    text = (
        f"{counted(len(differ), 'pair')} of {len(findings.pairs)} {'differs' if len(differ) == 1 else 'differ'} in "
        f"{score} beyond chance, the better named first: {'; '.join(words)}."
        if differ
        else f"No pair differs in {score} beyond chance on these test galaxies; that does not make them equal."
    )
    unknown = [f"{pair.first} and {pair.second}" for pair in findings.pairs if not pair.seeds_known]
    if unknown:
        text += f" What another seed would change is not known of {'; '.join(unknown)}: chance among galaxies alone."
    return (Paragraph(text), table)


def _classes(findings: Findings) -> tuple[Block, ...]:
    if findings.info.task.kind == "votes":
        return ()
    answered = [one for one in findings.standings.values() if one.answers]
    if not answered:
        return (Paragraph("No answers for single test galaxies are there, so nothing is known class by class."),)
    tables: list[Block] = [
        class_tables.per_class(findings, one, folded=place > 0) for place, one in enumerate(answered)
    ]
    drawn = classes.confusions(findings)
    pictures = gallery.mistakes(findings)
    return _present(
        class_tables.recalls(findings),
        *tables,
        Figures(drawn) if drawn else Paragraph("Too many classes to draw what is taken for what."),
        Paragraph(pictures) if isinstance(pictures, str) else pictures,
    )


def _calibration(findings: Findings) -> tuple[Block, ...]:
    drawn = classes.reliabilities(findings)
    if not drawn:
        return ()
    text = (
        "A calibrated network lies on the dashed line: of the answers of which it is 80 % sure, 80 % are right. Larger "
        "dots hold more answers; all seeds together."
        if findings.info.task.kind == "classes"
        else "A calibrated network lies on the dashed line: where it predicts a fraction of 0.8, volunteers gave 0.8 "
        "on average. Larger dots hold more answers; all seeds together; the leading backbone only."
    )
    return _present(Paragraph(text), class_tables.calibration(findings), Figures(drawn))


def _mattered(findings: Findings, judged: Judged) -> tuple[Block, ...]:
    best, lines = curves.progress(findings), curves.learning_curves(findings)
    if best is None:
        return (Paragraph("No trial reached a validation value, so there is nothing to draw."),)
    compared, shares = judged.compared, judged.shares
    few = [f"{name} ({len(found.values)})" for name, found in compared.items() if len(found.values) < ENOUGH_TRIALS]
    lengths = "; ".join(
        f"{name}: {counted(len(found.values), 'trial')} within {counted(found.epochs, 'epoch')}"
        for name, found in compared.items()
    )
    blocks: list[Block | None] = [
        Paragraph(f"Judged on trials of equal length, the longest that enough trials reached ({lengths}).")
    ]
    if few:
        blocks.append(
            Paragraph(f"Too few trials to trust these importances, below {ENOUGH_TRIALS}: {listed(tuple(few))}.")
        )
    drawn = parameters.importance(findings, shares)
    blocks += [Figures((drawn,)) if drawn else None, trials.importances(shares, compared)]
    blocks += _details(findings, judged)
    blocks += [Figures((best,)), Paragraph(curves.CURVES_KEY), Figures(lines)]
    return _present(*blocks)


def _details(findings: Findings, judged: Judged) -> list[Block | None]:
    blocks: list[Block | None] = []
    for name in [name for name in findings.order if judged.shares.get(name)][:NUM_DETAILED]:
        trials_, names = judged.compared[name], list(judged.shares[name])
        items = [parameters.slices(findings, trials_, names), parameters.parallel(findings, trials_, names)]
        drawn = tuple(item for item in items if item is not None)
        blocks.append(Figures(drawn, summary=f"{name}: values against the main parameters") if drawn else None)
    return blocks


def _transfer(findings: Findings, judged: Judged) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for name, found in judged.transfers.items():
        if found:
            # Drawn where most kinds can be compared; of such, the longest.
            epochs = max(found, key=lambda one: (len(found[one]), one))
            drawn = transfer_figure(findings, name, epochs, found[epochs])
            blocks += [Figures((drawn,)), trials.transfer(findings, name, found)]
    if not blocks:
        return ()
    text = (
        "Trials that start from scratch or from given weights, and of these train the head alone (frozen), some of the "
        "last stages (partly) or as many as the space allows (fully), all after the same number of epochs. They were "
        "not drawn at random: the sampler favours what did well, and the other parameters differ too. So this shows "
        "what the search met, not what causes it."
    )
    return (Paragraph(text), *blocks)


def _time(findings: Findings) -> tuple[Block, ...]:
    return _present(Paragraph(cost.time_words(findings)), cost.time(findings))


def _failures(findings: Findings) -> tuple[Block, ...]:
    table, num_left_out = trials.endings(findings)
    blocks: list[Block | None] = [table or Paragraph("No trial failed and none was stopped early.")]
    if num_left_out:
        blocks.append(Paragraph(f"{counted(num_left_out, 'more reason')}: see trials.parquet."))
    num_open = int((~findings.trials.table["state"].isin(list(cost.STATES))).sum())
    if num_open:
        blocks.append(Paragraph(f"{counted(num_open, 'trial')} had not ended when this report was written."))
    return _present(*blocks, trials.finals_failed(findings), trials.reruns(findings))


def _best(findings: Findings, configs: dict[str, dict[str, object]]) -> tuple[Block, ...]:
    if not configs:
        return (Paragraph("No trial recorded a value and a configuration."),)
    commands = "\n\n".join(str(entry["command"]) for entry in configs.values())
    return _present(
        trials.best_parameters(findings),
        trials.trained(findings),
        Code("Train a best configuration again", commands),
        *(
            Code(f"Whole configuration of {backbone}", config_tables.as_json(entry["config"]), folded=True)
            for backbone, entry in configs.items()
        ),
    )


def _survey(findings: Findings) -> tuple[Block, ...]:
    info = findings.info
    drawn = "drawn by a simulation, not observed" if info.simulated else "as converted from the survey's files"
    sizes = ", ".join(f"{whole(info.split_sizes.get(key, 0))} {name}" for name, key in SPLITS.items())
    text = f"{info.survey}: galaxies {drawn}; {_task(findings)}; {sizes}."
    return _present(Paragraph(text), class_tables.class_counts(findings))


def _reproduce(findings: Findings) -> tuple[Block, ...]:
    info = findings.info
    budget = [counted(info.num_trials, "trial") + " a space"] if info.num_trials is not None else []
    budget += [f"{counted(info.max_epochs, 'epoch')} a trial"]
    budget += [duration(info.time_budget_s)] if info.time_budget_s is not None else []
    rungs = ", ".join(map(str, info.rungs)) or "none"
    facts = {
        "Objective": f"validation {findings.objective}, {info.direction}imum",
        "Budget": ", at most ".join(["at most " + budget[0], *budget[1:]]),
        "Rungs": f"after epochs {rungs}" if info.rungs else rungs,
        "Sampler": info.sampler,
        "Scheduler": info.scheduler,
        "Seed": str(info.seed),
        "Precision": info.precision,
        "Processors a trial": str(info.threads or ""),
        "GPUs a trial": f"{info.gpus_per_trial:g}" if info.gpus_per_trial else "",
        "Data": info.data,
        "Data digest": info.survey_digest,
        **{f"Space {name}": f"sha256:{digest}" for name, digest in info.spaces.items()},
        **{
            f"Fixed in {name}": ", ".join(f"{key}={one!r}" for key, one in of.items())
            for name, of in info.fixed.items()
        },
        "Search took": duration(info.elapsed_s),
        "All sessions took": duration(info.whole_s),
        **info.versions,
    }
    groups = tuple((name, ((value,),)) for name, value in facts.items() if value)
    return _present(
        Code("The command", info.command),
        _sessions(findings),
        Table("What the run was made of", ("", "Value"), groups, text_columns=1),
        Paragraph(
            "The numbers behind this page are beside it: trials.parquet has a row a trial, curves.parquet a row a "
            "trial and epoch, scores.csv, costs.csv, time.csv, classes.csv, pairs.csv, selection.csv, questions.csv, "
            "confusion.csv, calibration.csv, importances.csv and transfer.csv what the tables and pictures above show, "
            "best_configs.json each backbone's best configuration with its scores. Trials that run side by side end in "
            "an order that the machine decides, so a repeated search may propose others."
        ),
    )


def _sessions(findings: Findings) -> Table | None:
    sessions = findings.info.sessions
    if len(sessions) < 2:
        return None
    unended = {True: "unknown: it runs, or was killed", False: "it was killed"}
    groups = tuple(
        (
            str(place),
            (
                (
                    one.command,
                    one.started,
                    one.ended or "not ended",
                    duration(one.elapsed_s) if math.isfinite(one.elapsed_s) else "unknown",
                    one.reason or ("all was done" if one.ended else unended[place == len(sessions)]),
                ),
            ),
        )
        for place, one in enumerate(sessions, start=1)
    )
    columns = ("Session", "Command", "Started", "Ended", "Took", "Why it ended")
    return Table("The calls that worked on this run", columns, groups, text_columns=5)
