"""The trials: which were best, what they chose, how the others ended."""

import math
from pathlib import Path
from typing import Any

from search.report.blocks import DASH, Table, counted, decimal, percent, whole
from search.report.comparable import KINDS, Comparable, median
from search.report.findings import Findings
from search.report.tables.cost import STATES
from search.results import WEIGHTS_NAME

MAX_REASONS = 20
MAX_REASON_LENGTH = 160


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
            standing = findings.standings.get(backbone)
            folders = [run.folder(Path()).as_posix() for run in standing.runs] if standing else []
            weights = f"{folders[0]}/{WEIGHTS_NAME}" if folders else DASH
            if len(folders) > 1:
                weights += f" and {counted(len(folders) - 1, 'more seed')}"
            groups.append((backbone, ((f"#{number}", weights, _remark(findings.trials.row(backbone, number))),)))
    columns = ("Backbone", "Trial", "Weights, in the run's folder", "Remark")
    return Table("Best trial of each backbone", columns, tuple(groups), text_columns=3)


def _remark(row: dict[str, Any] | None) -> str:
    remarks = []
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


def transfer(findings: Findings, backbone: str, epochs: int, groups: dict[str, list[float]]) -> Table:
    """Values by how much of the network was trained."""
    better = max if findings.info.direction == "max" else min
    rows = tuple(
        (
            kind,
            ((whole(len(values)), decimal(better(values), 4), decimal(median(values), 4), decimal(worst(values), 4)),),
        )
        for kind in KINDS
        if (values := groups.get(kind))
        for worst in [min if better is max else max]
    )
    return Table(
        caption=f"{backbone}: best validation {findings.objective} within {counted(epochs, 'epoch')}",
        columns=("Trained", "Trials", "Best", "Median", "Worst"),
        groups=rows,
    )


def endings(findings: Findings) -> tuple[Table | None, int]:
    """How trials ended and why, most frequent first; and how many rows were left out."""
    table = findings.trials.table[findings.trials.table["state"].isin(["PRUNED", "FAIL"])]
    found: dict[tuple[str, str, str], list[int]] = {}
    for backbone, state, reason, number in zip(
        *(table[n] for n in ("backbone", "state", "reason", "trial")), strict=True
    ):
        found.setdefault((backbone, STATES[state], _short(reason)), []).append(number)
    if not found:
        return None, 0
    order = sorted(found, key=lambda key: (key[1], findings.order.index(key[0]), -len(found[key]), key[2]))
    groups = tuple(
        (backbone, ((state, reason, whole(len(numbers)), _some(numbers)),))
        for backbone, state, reason in order[:MAX_REASONS]
        for numbers in [found[backbone, state, reason]]
    )
    columns = ("Backbone", "Ended", "Why", "Trials", "Which")
    return Table("Trials that did not run to the end", columns, groups, text_columns=2), len(order) - len(groups)


def _short(reason: str) -> str:
    words = " ".join(reason.split()) or "no reason recorded"
    return words if len(words) <= MAX_REASON_LENGTH else words[: MAX_REASON_LENGTH - 1] + "…"


def _some(numbers: list[int]) -> str:
    shown = ", ".join(f"#{number}" for number in numbers[:5])
    return shown if len(numbers) <= 5 else f"{shown}, …"
