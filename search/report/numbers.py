"""The numbers behind the page, as tables to be read by machine."""

import math
from typing import TYPE_CHECKING

import numpy as np

from galaxy_models.morphology.tree import GZ2
from search.report.comparable import Judged
from search.report.evidence.classes import Reliability, class_reliability, confusion, vote_reliability
from search.report.evidence.questions import question_estimates
from search.report.evidence.scores import NUM_BINS
from search.report.figures.results import cost_of
from search.report.findings import Findings
from search.report.tables.cost import STATES, energy_kwh, hours, time_spent
from search.report.tables.scores import searched_value

if TYPE_CHECKING:
    import pandas as pd


def all_tables(findings: Findings, judged: Judged) -> "dict[str, pd.DataFrame]":
    """Every table by the name of its file; those that say nothing of this run have no rows."""
    return {
        "scores": score_table(findings),
        "costs": cost_table(findings),
        "time": time_table(findings),
        "classes": class_table(findings),
        "pairs": pair_table(findings),
        "selection": selection_table(findings),
        "questions": question_table(findings),
        "confusion": confusion_table(findings),
        "calibration": calibration_table(findings),
        "importances": importance_table(judged),
        "transfer": transfer_table(judged),
    }


def score_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone, split and score; those of a class or vote fraction are named like `recall:<class>`."""
    import pandas as pd

    names = findings.info.task.names
    rows = []
    for backbone, standing in findings.standings.items():
        for row, scores in standing.scores.items():
            for score, found in scores.items():
                kind, _, index = score.partition(":")
                label = f"{kind}:{names[int(index)]}" if index else score
                rows.append(
                    (backbone, standing.trial, row, label, found.value, found.spread, found.low, found.high,
                     len(standing.runs))
                )  # fmt: skip
    columns = ["backbone", "trial", "split", "score", "value", "spread_over_seeds", "low", "high", "num_seeds"]
    return pd.DataFrame(rows, columns=columns)


def cost_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone: what its network costs, and what its search did."""
    import pandas as pd

    keys, own = ("num_parameters", "flops", "images_per_s", "memory_mb"), findings.own_trials
    rows = []
    for name in findings.order:
        standing = findings.standings.get(name)
        known = [cost_of(standing, key) if standing else math.nan for key in keys]
        trials = own[own["backbone"] == name]
        states = [int((trials["state"] == state).sum()) for state in STATES]
        rows.append((name, *known, len(trials), *states, int(trials["epochs"].sum()), hours(findings, name)))
    columns = ["backbone", "num_parameters", "gflops", "images_per_s", "memory_mb", "trials", *STATES.values(),
               "epochs", "gpu_hours" if findings.info.gpus_per_trial else "cpu_hours"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def time_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone: the seconds it took, by what they went into, and the energy that was measured."""
    import pandas as pd

    rows = [
        {
            "backbone": name,
            **{f"{part}_s": seconds for part, seconds in time_spent(findings, name).items()},
            "energy_kwh": energy_kwh(findings, name),
        }
        for name in findings.trials.backbones
    ]
    return pd.DataFrame(rows)


def class_table(findings: Findings) -> "pd.DataFrame":
    """A row a class and split: its galaxies; empty for votes."""
    import pandas as pd

    counts, names = findings.info.class_counts, findings.info.task.names
    rows = [(name, split, number) for split, of in counts.items() for name, number in zip(names, of, strict=False)]
    return pd.DataFrame(rows, columns=["class", "split", "galaxies"])


def pair_table(findings: Findings) -> "pd.DataFrame":
    """A row a pair of backbones."""
    import pandas as pd

    columns = [
        "first", "second", "difference", "low", "high", "first_better", "second_better", "galaxy_error",
        "seed_error", "p_value", "p_adjusted", "p_sign", "differs",
    ]  # fmt: skip
    rows = [tuple(getattr(pair, name) for name in columns) for pair in findings.pairs]
    return pd.DataFrame(rows, columns=columns)


def confusion_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone, true class and answer; empty for votes."""
    import pandas as pd

    names, rows = findings.info.task.names, []
    classes = findings.info.task.kind == "classes"
    for backbone, standing in findings.standings.items():
        if classes and standing.answers:
            counts = confusion(standing)
            rows += [(backbone, names[i], names[j], counts[i, j]) for i, j in np.ndindex(*counts.shape)]
    return pd.DataFrame(rows, columns=["backbone", "true", "answered", "mean_galaxies"])


def selection_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone: the selected trial's validation objective, and that of its configuration trained again."""
    import pandas as pd

    rows = []
    for name, standing in findings.standings.items():
        again = standing.estimate("validation", findings.info.objective)
        rows.append((name, standing.trial, searched_value(findings, standing), again.value, again.spread))
    return pd.DataFrame(rows, columns=["backbone", "trial", "in_search", "trained_again", "spread_over_seeds"])


def question_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone and question of the Galaxy Zoo 2 tree; empty for other surveys."""
    import pandas as pd

    rows = [
        (backbone, name, found.value, found.spread, found.low, found.high)
        for backbone, standing in findings.standings.items()
        for name, found in question_estimates(standing, findings.info).items()
    ]
    return pd.DataFrame(rows, columns=["backbone", "question", "rmse", "spread_over_seeds", "low", "high"])


def calibration_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone, question (none for classes) and bin of predictions that holds answers."""
    import pandas as pd

    rows: list[tuple[object, ...]] = []

    def add(name: str, question: str, found: Reliability) -> None:
        for index, (mean, seen, count) in enumerate(zip(found.predicted, found.observed, found.counts, strict=True)):
            if count:
                rows.append((name, question, index / NUM_BINS, (index + 1) / NUM_BINS, mean, seen, count))

    for name, standing in findings.standings.items():
        if not standing.answers:
            continue
        if findings.info.task.kind == "classes":
            add(name, "", class_reliability(standing))
        elif findings.info.task.names == GZ2.columns:
            for question in GZ2.questions:
                add(name, question.name, vote_reliability(standing, question.columns))
    columns = ["backbone", "question", "from", "to", "mean_predicted", "mean_observed", "answers"]
    return pd.DataFrame(rows, columns=columns)


def importance_table(judged: Judged) -> "pd.DataFrame":
    """A row a backbone and parameter that varied."""
    import pandas as pd

    rows = [
        (name, parameter, share, judged.compared[name].epochs, len(judged.compared[name].values))
        for name, shares in judged.shares.items()
        for parameter, share in shares.items()
    ]
    return pd.DataFrame(rows, columns=["backbone", "parameter", "importance", "epochs", "num_trials"])


def transfer_table(judged: Judged) -> "pd.DataFrame":
    """A row a trial that is compared by how much of its network was trained, at each length."""
    import pandas as pd

    rows = [
        (name, epochs, kind, value)
        for name, lengths in judged.transfers.items()
        for epochs, kinds in lengths.items()
        for kind, values in kinds.items()
        for value in values
    ]
    return pd.DataFrame(rows, columns=["backbone", "epochs", "trained", "value"])
