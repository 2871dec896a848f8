"""The report's tables, each a pure function of trials, final evaluations and the run."""

import json
import math
import shlex
from pathlib import Path
from typing import Any

from galaxy_models.task import METRICS
from search.report.blocks import DASH, Table, counted, decimal, percent, whole
from search.report.collect import SPLITS, FinalEvaluation, RunInfo, Trials
from search.report.verdict import majority_class, ranked, standard_error

LABELS = {
    "nll": "NLL", "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "precision": "Precision",
    "recall": "Recall", "f1": "F1", "auroc": "AUROC", "ece": "ECE", "rmse": "RMSE",
}  # fmt: skip
STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed"}
METRICS_NOTE = (
    "Precision, recall and F1 are means over classes, as is AUROC (each class against the rest). "
    "NLL: negative log-likelihood per galaxy. ECE: expected calibration error. ± is the binomial standard error of the "
    "accuracy. Validation scores chose the trial and are flattered by that; test scores are not. "
    "Ordered by the validation objective."
)
MAX_REASONS = 20
MAX_REASON_LENGTH = 160


def display_order(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> list[str]:
    """Backbones, best validation objective first, those without final evaluation last."""
    order = [final.backbone for final in ranked(finals, info)]
    return order + [name for name in trials.backbones if name not in finals]


def comparison(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> Table:
    """Every metric on every split, three rows a backbone."""
    metrics = sorted(METRICS[info.task.kind], key=lambda name: name == "nll")
    columns = ["Backbone", "Split", "Galaxies"]
    for name in metrics:
        columns += [LABELS[name], "±"] if name == "accuracy" else [LABELS[name]]
    groups = []
    for backbone in display_order(trials, finals, info):
        rows = tuple(_split_row(finals.get(backbone), split, metrics, info) for split in SPLITS)
        groups.append((backbone, rows))
    note = METRICS_NOTE
    if info.task.kind == "votes":
        note = f"RMSE: over the {info.task.num_outputs} vote fractions. Ordered by the validation objective."
    return Table(
        caption="Best trial of each backbone on every split",
        columns=tuple(columns), groups=tuple(groups), text_columns=1, strong_last=True, note=note,
    )  # fmt: skip


def _split_row(final: FinalEvaluation | None, split: str, metrics: list[str], info: RunInfo) -> tuple[str, ...]:
    size = info.split_sizes.get(SPLITS[split], 0)
    cells = [split, whole(size)]
    for name in metrics:
        value = final.metric(split, name) if final else math.nan
        cells.append(decimal(value, 4 if name == "rmse" else 3))
        if name == "accuracy":
            cells.append(decimal(standard_error(value, size)))
    return tuple(cells)


def cost(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> Table:
    """What each backbone is and what its search took."""
    groups = []
    for backbone in display_order(trials, finals, info):
        final, rows = finals.get(backbone), trials.table[trials.table["backbone"] == backbone]
        states, best = rows["state"].value_counts(), chosen_trial(trials, backbone, finals, info)
        row = None if best is None else trials.row(backbone, best)
        cells = [
            f"{final.num_parameters / 1e6:,.2f}" if final else DASH,
            whole(final.images_per_s) if final else DASH,
            whole(len(rows)),
            *(whole(states.get(state, 0)) for state in STATES),
            whole(rows["epochs"].sum()),
            decimal(rows["seconds"].sum(min_count=1) / 3600, 2),
            decimal(row["value"] if row else math.nan, 4),
            DASH if best is None else str(best),
        ]
        groups.append((backbone, (tuple(cells),)))
    return Table(
        caption="What each backbone is, and what its search took",
        columns=(
            "Backbone", "Parameters (millions)", "Images/s", "Trials", "Complete", "Stopped", "Failed", "Epochs",
            "Hours", f"Validation {LABELS.get(info.objective, info.objective)}", "Best trial",
        ),
        groups=tuple(groups),
        note="Images/s: answering, not training, on the machine of the search. Stopped: by ASHA at a rung or by the "
        "time budget. Hours: summed over trials, which may run side by side. The validation value is what the best "
        "trial reached in the search.",
    )  # fmt: skip


def class_counts(info: RunInfo) -> Table | None:
    """Galaxies of each class in each split; None for a survey of votes."""
    counts = {split: info.class_counts.get(SPLITS[split], ()) for split in SPLITS}
    if not any(counts.values()):
        return None
    total = sum(sum(of_split) for of_split in counts.values())
    groups = []
    for index, name in enumerate(info.task.names):
        of_class = [of_split[index] if of_split else 0 for of_split in counts.values()]
        share = percent(sum(of_class) / total) if total else DASH
        groups.append((name, ((*map(whole, of_class), share),)))
    baseline = majority_class(info)
    note = "The split depends on each galaxy's id alone."
    if baseline is not None:
        note = (
            f"Majority baseline: always answering {baseline[0]} is right for {percent(baseline[1])} of the test split."
        )
    sizes = tuple(whole(sum(of_split)) for of_split in counts.values())
    groups.append(("all", ((*sizes, percent(1.0) if total else DASH),)))
    return Table(
        caption="Galaxies of each class",
        columns=("Class", "Train", "Validation", "Test", "Share of all"), groups=tuple(groups), note=note,
    )  # fmt: skip


def chosen_trial(trials: Trials, backbone: str, finals: dict[str, FinalEvaluation], info: RunInfo) -> int | None:
    """The finally evaluated trial, else the best complete one, else the best that got a value, else None."""
    if backbone in finals:
        return finals[backbone].trial
    ended = (trials.table["backbone"] == backbone) & (trials.table["state"] != "FAIL")
    rows = trials.table[ended & trials.table["value"].notna()]
    complete = rows[rows["state"] == "COMPLETE"]
    rows = rows if complete.empty else complete
    if rows.empty:
        return None
    best = rows["value"].max() if info.direction == "max" else rows["value"].min()
    return int(rows["trial"][rows["value"] == best].min())


def best_parameters(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> Table | None:
    """What the sampler chose for each backbone's best trial: a row a parameter, a column a backbone."""
    chosen: dict[str, dict[str, Any]] = {}
    for backbone in display_order(trials, finals, info):
        number = chosen_trial(trials, backbone, finals, info)
        if number is not None:
            chosen[f"{backbone} #{number}"] = trials.params.get((backbone, number), {})
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


def trained(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> Table:
    """Each backbone's best trial: where its weights are, and what is unusual about it."""
    groups = []
    for backbone in display_order(trials, finals, info):
        number = chosen_trial(trials, backbone, finals, info)
        if number is not None:
            weights = finals[backbone].weights_file if backbone in finals else ""
            groups.append((backbone, ((f"#{number}", weights or DASH, _remark(trials.row(backbone, number))),)))
    columns = ("Backbone", "Trial", "Trained weights, in the run's folder", "Remark")
    return Table("Best trial of each backbone", columns, tuple(groups), text_columns=3)


def _remark(row: dict[str, Any] | None) -> str:
    remarks = []
    if row and row["named"]:
        remarks.append("hand-picked; the search found none better")
    if row and row["state"] != "COMPLETE":
        remarks.append(f"did not run to the end: {counted(row['epochs'], 'epoch')}")
    return "; ".join(remarks) or "found by the search"


def endings(trials: Trials, backbones: list[str]) -> tuple[Table | None, int]:
    """How trials ended and why, most frequent first; and how many rows were left out."""
    table = trials.table[trials.table["state"].isin(["PRUNED", "FAIL"])]
    found: dict[tuple[str, str, str], list[int]] = {}
    for backbone, state, reason, number in zip(
        *(table[n] for n in ("backbone", "state", "reason", "trial")), strict=True
    ):
        found.setdefault((backbone, STATES[state], _short(reason)), []).append(number)
    if not found:
        return None, 0
    order = sorted(found, key=lambda key: (key[1], backbones.index(key[0]), -len(found[key]), key[2]))
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


def best_configs(
    trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo, *, path: Path
) -> dict[str, dict[str, Any]]:
    """Each backbone's best configuration, its metrics on every split, and the command that trains it again.

    Args:
        trials: every trial.
        finals: final evaluation of each backbone that has one.
        info: the run.
        path: where the result will be written, for the command.

    Returns:
        For each backbone that has one: `config`, `trial`, `train`, `validation`, `test` (None where not evaluated,
        and for each value that is not finite) and `command`.
    """
    found = {}
    for backbone in display_order(trials, finals, info):
        number = chosen_trial(trials, backbone, finals, info)
        config = None if number is None else trials.configs.get((backbone, number))
        if config is None:
            continue
        final = finals.get(backbone)
        metrics = {split: _finite(final.metrics.get(split)) if final else None for split in SPLITS}
        found[backbone] = {
            "config": config, "trial": number, **metrics, "command": train_command(backbone, info, path)
        }  # fmt: skip
    return found


def _finite(metrics: dict[str, float] | None) -> dict[str, float | None] | None:
    if metrics is None:
        return None
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}


def train_command(backbone: str, info: RunInfo, path: Path) -> str:
    """The command that trains a backbone's best configuration again."""
    out = "retrained/" + "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in backbone)
    words = ["python", "-m", "galaxy_models.train", path.as_posix()]
    words += ["--backbone", backbone, "--data", info.data, "--out", out]
    words += ["--objective", info.objective]
    words += ["--threads", str(info.threads)] if info.threads else []
    words += ["--weights-dir", info.weights_dir] if info.weights_dir else []
    return shlex.join(words)


def as_json(value: object) -> str:
    """Readable JSON with a final newline; fails on NaN rather than write what JSON does not know."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
