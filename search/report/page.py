"""Puts the report's parts in the order in which a reader asks for them."""

from search.report import figures, tables, verdict
from search.report.blocks import (
    Block,
    Code,
    Figures,
    Page,
    Paragraph,
    Section,
    Table,
    counted,
    duration,
    whole,
)
from search.report.collect import SPLITS, FinalEvaluation, RunInfo, Trials


def build_page(
    trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo, *, configs: dict[str, dict[str, object]]
) -> Page:
    """The whole report as data.

    Args:
        trials: every trial.
        finals: final evaluation of each backbone that has one.
        info: the run.
        configs: what `tables.best_configs` gave.
    """
    sky = "simulated survey" if info.simulated else "survey"
    of = f"{sky} {info.survey} · {_task(info)}"
    return Page(
        title=f"Galaxy Search: {info.name}",
        subtitle=f"{of} · {counted(len(trials.backbones), 'backbone')} · seed {info.seed}",
        answer=verdict.answer(trials, finals, info),
        cautions=verdict.cautions(trials, finals, info),
        sections=(
            Section("comparison", "Comparison", _comparison(trials, finals, info)),
            Section("best", "Best configurations", _best(trials, finals, info, configs=configs)),
            Section("survey", "The survey", _survey(info)),
            Section("search", "How the search went", _search(trials, finals, info)),
            Section("failures", "What stopped and what failed", _failures(trials, finals, info)),
            Section("reproduce", "How to reproduce it", _reproduce(info)),
        ),
    )


def _task(info: RunInfo) -> str:
    kind = "classes" if info.task.kind == "classes" else "vote fractions"
    return f"{info.task.num_outputs} {kind}"


def _comparison(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> tuple[Block, ...]:
    if not trials.backbones:
        return (Paragraph("No backbone was searched."),)
    return (tables.comparison(trials, finals, info), tables.cost(trials, finals, info))


def _best(
    trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo, *, configs: dict[str, dict[str, object]]
) -> tuple[Block, ...]:
    if not configs:
        return (Paragraph("No trial recorded a value and a configuration."),)
    commands = "\n\n".join(str(entry["command"]) for entry in configs.values())
    blocks = (
        tables.best_parameters(trials, finals, info),
        tables.trained(trials, finals, info),
        Code("Train a best configuration again", commands),
        *(
            Code(f"Whole configuration of {backbone}", tables.as_json(entry["config"]), folded=True)
            for backbone, entry in configs.items()
        ),
    )
    return tuple(block for block in blocks if block is not None)


def _survey(info: RunInfo) -> tuple[Block, ...]:
    drawn = "drawn by a simulation, not observed" if info.simulated else "as converted from the survey's files"
    sizes = ", ".join(f"{whole(info.split_sizes.get(key, 0))} {name}" for name, key in SPLITS.items())
    text = f"{info.survey}: galaxies {drawn}; {_task(info)}; {sizes}."
    counts = tables.class_counts(info)
    return (Paragraph(text), counts) if counts else (Paragraph(text),)


def _search(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> tuple[Block, ...]:
    best, curves = figures.progress(trials, info), figures.learning_curves(trials, finals, info)
    if best is None:
        return (Paragraph("No trial reached a validation value, so there is nothing to draw."),)
    return (Figures((best,)), Paragraph(figures.CURVES_KEY), Figures(curves))


def _failures(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> tuple[Block, ...]:
    order = tables.display_order(trials, finals, info)
    table, num_left_out = tables.endings(trials, order)
    blocks: list[Block] = [table or Paragraph("No trial failed and none was stopped early.")]
    if num_left_out:
        blocks.append(Paragraph(f"{counted(num_left_out, 'more reason')}: see trials.parquet."))
    num_open = int((~trials.table["state"].isin(list(tables.STATES))).sum())
    if num_open:
        blocks.append(Paragraph(f"{counted(num_open, 'trial')} had not ended when this report was written."))
    return tuple(blocks)


def _reproduce(info: RunInfo) -> tuple[Block, ...]:
    budget = [counted(info.num_trials, "trial") + " a space"] if info.num_trials is not None else []
    budget += [f"{counted(info.max_epochs, 'epoch')} a trial"]
    budget += [duration(info.time_budget_s)] if info.time_budget_s is not None else []
    rungs = ", ".join(map(str, info.rungs)) or "none"
    facts = {
        "Objective": f"validation {tables.LABELS.get(info.objective, info.objective)}, {info.direction}imum",
        "Budget": ", at most ".join(["at most " + budget[0], *budget[1:]]),
        "Rungs": f"after epochs {rungs}" if info.rungs else rungs,
        "Seed": str(info.seed),
        "Data": info.data,
        "Data digest": info.survey_digest,
        "Elapsed": duration(info.elapsed_s),
        **info.versions,
    }
    groups = tuple((name, ((value,),)) for name, value in facts.items())
    return (
        Code("The command", info.command),
        Table("What the run was made of", ("", "Value"), groups, text_columns=1),
        Paragraph(
            "The numbers behind this page are beside it: trials.parquet has a row a trial, curves.parquet a row a "
            "trial and epoch, best_configs.json each backbone's best configuration with its scores. Trials that run "
            "side by side end in an order that the machine decides, so a repeated search may propose others."
        ),
    )
