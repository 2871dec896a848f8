"""Each backbone's best configuration, and how to train it again."""

import json
import math
import shlex
from pathlib import Path
from typing import Any

from galaxy_models.task import METRICS
from search.report.evidence.standing import SPLITS, Standing
from search.report.findings import Findings
from search.report.run_info import RunInfo


def best_configs(findings: Findings, *, path: Path) -> dict[str, dict[str, Any]]:
    """Each backbone's best configuration, its metrics on every split, and the command that trains it again.

    Args:
        findings: the run.
        path: where the result will be written, for the command.

    Returns:
        For each backbone that has one: `config`, `trial`, `train`, `validation`, `test` and `command`. Metrics are
        means over the seeds of the final evaluation; without one those of the trial's best epoch, and None for `test`.
        A value that is not finite is None.
    """
    found = {}
    for backbone in findings.order:
        number = findings.chosen_trial(backbone)
        if number is None:
            continue
        standing = findings.standings.get(backbone)
        config = findings.trials.configs.get((backbone, number))
        if config is None and standing is not None:
            config = dict(standing.runs[0].config)
        if config is None:
            continue
        metrics = _of_standing(standing, findings) if standing else _of_trial(findings, backbone, number)
        command = train_command(backbone, findings.info, path)
        found[backbone] = {"config": config, "trial": number, **metrics, "command": command}
    return found


def _of_standing(standing: Standing, findings: Findings) -> dict[str, dict[str, float | None] | None]:
    names = METRICS[findings.info.task.kind]
    return {split: _finite({name: standing.value(split, name) for name in names}) for split in SPLITS}


def _of_trial(findings: Findings, backbone: str, number: int) -> dict[str, dict[str, float | None] | None]:
    row, curves = findings.trials.row(backbone, number), findings.trials.curves
    epochs = curves[(curves["backbone"] == backbone) & (curves["trial"] == number)]
    best = epochs[epochs["epoch"] == row["best_epoch"]] if row and not epochs.empty else epochs
    found: dict[str, dict[str, float | None] | None] = dict.fromkeys(SPLITS)
    for split, prefix in (("train", "train_"), ("validation", "val_")):
        columns = [f"{prefix}{name}" for name in METRICS[findings.info.task.kind]]
        present = [name for name in columns if name in best and not best.empty]
        if present:
            found[split] = _finite({name.removeprefix(prefix): float(best[name].iloc[0]) for name in present})
    return found


def _finite(metrics: dict[str, float]) -> dict[str, float | None]:
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
