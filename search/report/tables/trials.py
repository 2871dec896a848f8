"""The trials: which were best, what they chose, how the others ended."""

import math
import re
from pathlib import Path
from typing import Any

from search.report.blocks import DASH, Table, counted, decimal, listed, percent, whole
from search.report.comparable import KINDS, Comparable, median
from search.report.findings import Findings
from search.report.tables.cost import STATES
from search.results import WEIGHTS_NAME

MAX_REASONS = 20
MAX_REASON_LENGTH = 160
# Why a trial repeats another, by the column of the table of trials that names the other.
RERUNS = {
    "duplicate_of": "proposed again: the recorded result was taken, without an epoch of training",
    "finalist_of": "stopped early but among the best: run again to the full length",
    "promoted_from": "complete, but shorter than trials became: run again to the new length",
}


def best_parameters(findings: Findings) -> Table | None:
    """What the sampler chose for each backbone's best trial: a row a parameter, a column a backbone."""
    chosen: dict[str, dict[str, Any]] = {}
    for backbone in findings.order:
        number = findings.chosen_trial(backbone)
        if number is not None:
            chosen[f"{backbone} #{number}"] = findings.trials.params.get((backbone, number), {})
    names = list(dict.fromkeys(name for params in chosen.values() for name in params))
    if not names:
        return None
    groups = tuple((name, (tuple(_cell(params, name) for params in chosen.values()),)) for name in names)
    return Table(
        caption="Searched parameters of each backbone's best trial (# is the trial's number)",
        columns=("Parameter", *chosen), groups=groups,
        note=f"{DASH}: not a parameter of that backbone's space, or not of that branch of it.",
    )  # fmt: skip


def _cell(params: dict[str, Any], name: str) -> str:
    if name not in params:
        return DASH
    value = params[name]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def trained(findings: Findings) -> Table:
    """Each backbone's best trial: where its weights are, and what is unusual about it."""
    groups = []
    for backbone in findings.order:
        number = findings.chosen_trial(backbone)
        if number is not None:
            weights = _weights(findings, backbone)
            groups.append((backbone, ((f"#{number}", weights, _remark(findings.trials.row(backbone, number))),)))
    columns = ("Backbone", "Trial", "Weights, in the run's folder", "Remark")
    return Table("Best trial of each backbone", columns, tuple(groups), text_columns=3)


def _weights(findings: Findings, backbone: str) -> str:
    """Where the retrained networks lie, and which of them are gone."""
    standing = findings.standings.get(backbone)
    if standing is None:
        return DASH
    paths = [run.folder(Path()) / WEIGHTS_NAME for run in standing.runs]
    words = paths[0].as_posix()
    if len(paths) > 1:
        words += f" and {counted(len(paths) - 1, 'more seed')}"
    gone = [str(run.seed_index + 1) for run, path in zip(standing.runs, paths, strict=True)
            if not (findings.run_dir / path).is_file()]  # fmt: skip
    return f"{words} (deleted: seed {listed(tuple(gone))})" if gone else words


def _remark(row: dict[str, Any] | None) -> str:
    import pandas as pd

    remarks = []
    if row and pd.notna(row["promoted_from"]):
        remarks.append(f"the configuration of #{row['promoted_from']}, run again to the full length")
    if row and pd.notna(row["branched_from"]):
        remarks.append(f"went on from #{row['branched_from']} with other settings; its configuration has them all")
    if row and row["named"]:
        remarks.append("hand-picked; the search found none better")
    if row and row["state"] != "COMPLETE":
        remarks.append(f"did not run to the end: {counted(row['epochs'], 'epoch')}")
    return "; ".join(remarks) or "found by the search"


def finals_failed(findings: Findings) -> Table | None:
    """Retrainings that gave nothing to evaluate."""
    groups = [
        (run.backbone, ((f"#{run.trial}", str(run.seed_index + 1), _short(run.failure)),))
        for run in findings.evidence.failed
    ]
    if not groups:
        return None
    columns = ("Backbone", "Trial", "Seed", "Why")
    return Table("Retrainings that failed", columns, tuple(groups), text_columns=3)


def importances(shares: dict[str, dict[str, float]], trials: dict[str, Comparable]) -> Table | None:
    """Importance of each parameter in each backbone's space."""
    shown = [name for name in shares if shares[name]]
    if not shown:
        return None
    total: dict[str, float] = {}
    for name in shown:
        for parameter, share in shares[name].items():
            total[parameter] = max(total.get(parameter, 0.0), share)
    groups = tuple(
        (parameter, (tuple(percent(shares[name].get(parameter, math.nan)) for name in shown),))
        for parameter in sorted(total, key=lambda one: -total[one])
    )
    judged = "; ".join(
        f"{name}: {counted(len(trials[name].values), 'trial')} at {counted(trials[name].epochs, 'epoch')}"
        for name in shown
    )
    return Table(
        caption="Importance of each searched parameter",
        columns=("Parameter", *shown),
        groups=groups,
        folded=True,
        note=f"PED-ANOVA on trials of equal length ({judged}). {DASH}: not in the space, or never varied.",
    )


def transfer(findings: Findings, backbone: str, found: dict[int, dict[str, list[float]]]) -> Table:
    """Values by how much of the network was trained, at each length that can be compared."""
    best, worst = (max, min) if findings.info.direction == "max" else (min, max)
    groups = tuple(
        (
            counted(epochs, "epoch"),
            tuple(
                (kind, whole(len(values)), *(decimal(of(values), 4) for of in (best, median, worst)))
                for kind in KINDS
                if (values := kinds.get(kind))
            ),
        )
        for epochs, kinds in found.items()
    )
    return Table(
        caption=f"{backbone}: best validation {findings.objective} within the same number of epochs",
        columns=("Within", "Trained", "Trials", "Best", "Median", "Worst"),
        groups=groups,
        text_columns=1,
    )


def endings(findings: Findings) -> tuple[Table | None, int]:
    """How trials ended and why, most frequent first; and how many rows were left out."""
    from search.population import without_names

    table = findings.own_trials[findings.own_trials["state"].isin(["PRUNED", "FAIL"])]
    found: dict[tuple[str, str, str], list[int]] = {}
    for backbone, state, reason, number in zip(
        *(table[n] for n in ("backbone", "state", "reason", "trial")), strict=True
    ):
        found.setdefault((backbone, STATES[state], _short(without_names(reason))), []).append(number)
    if not found:
        return None, 0
    order = sorted(found, key=lambda key: (key[1], findings.order.index(key[0]), -len(found[key]), _natural(key[2])))
    groups = tuple(
        (backbone, ((state, reason, whole(len(numbers)), _some([f"#{number}" for number in numbers])),))
        for backbone, state, reason in order[:MAX_REASONS]
        for numbers in [found[backbone, state, reason]]
    )
    columns = ("Backbone", "Ended", "Why", "Trials", "Which")
    return Table("Trials that did not run to the end", columns, groups, text_columns=2), len(order) - len(groups)


def reruns(findings: Findings) -> Table | None:
    """Trials that are no configurations of their own: which took another's result, or ran it again, and why."""
    table, groups = findings.trials.table, []
    for backbone in findings.order:
        own = table[table["backbone"] == backbone]
        for column, words in RERUNS.items():
            rows = own[own[column].notna()]
            if column == "promoted_from":
                rows = rows[rows["finalist_of"].isna()]
            if not rows.empty:
                which = [f"#{one} of #{other}" for one, other in zip(rows["trial"], rows[column], strict=True)]
                groups.append((backbone, ((words, whole(len(rows)), _some(which)),)))
    if not groups:
        return None
    columns = ("Backbone", "What and why", "Trials", "Which")
    return Table("Trials that repeat the configuration of another", columns, tuple(groups), text_columns=1)


def _short(reason: str) -> str:
    words = " ".join(reason.split()) or "no reason recorded"
    return words if len(words) <= MAX_REASON_LENGTH else words[: MAX_REASON_LENGTH - 1] + "…"


def _natural(words: str) -> list[str | int]:
    """To sort by: epoch 6 before epoch 12."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", words)]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown}, …"
