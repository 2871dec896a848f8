"""Trials on equal terms: their best value within a number of epochs that all of them were given.

Comparing trials that ran for different lengths would compare lengths. Failed trials are left out, and so are those that
repeat the configuration of another that is there.
"""

import contextlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.report.collect import Trials
from search.report.findings import Findings
from search.report.run_info import RunInfo

# Below this, an importance is noise.
ENOUGH_TRIALS = 20
KINDS = ("from scratch", "frozen", "partly trained", "fully trained")


@dataclass(frozen=True)
class Comparable:
    """Trials of one backbone at one number of epochs.

    Attributes:
        backbone: the space's name.
        epochs: how long each was trained.
        values: the best objective of each within these epochs, by trial number.
    """

    backbone: str
    epochs: int
    values: dict[int, float]


@dataclass(frozen=True)
class Judged:
    """What the trials of equal length say, by backbone; worked out once for the page and the tables beside it.

    Attributes:
        compared: the trials that were compared.
        shares: importance of each parameter.
        transfers: what `transfer` gave.
    """

    compared: dict[str, Comparable]
    shares: dict[str, dict[str, float]]
    transfers: dict[str, dict[int, dict[str, list[float]]]]


def judge(findings: Findings) -> Judged:
    """Compare the trials of each backbone, those of the leading one first."""
    compared = {name: found for name in findings.order if (found := at_equal_budget(findings, name)) is not None}
    shares = {name: importances(findings, found) for name, found in compared.items()}
    return Judged(compared, shares, {name: transfer(findings, name) for name in findings.order})


def at_equal_budget(findings: Findings, backbone: str, *, wanted: int = ENOUGH_TRIALS) -> Comparable | None:
    """The trials that reached the furthest rung that `wanted` trials reached; else the first; None without values."""
    first: Comparable | None = None
    for epochs in sorted({*findings.info.rungs, findings.info.max_epochs}, reverse=True):
        found = Comparable(backbone, epochs, values_at(findings.trials, backbone, epochs, findings.info))
        if len(found.values) >= wanted:
            return found
        first = found if found.values else first
    return first


def values_at(trials: Trials, backbone: str, epochs: int, info: RunInfo) -> dict[int, float]:
    """The best objective within a number of epochs, of each trial that reached it."""
    table, curves = trials.table, trials.curves
    own = table[(table["backbone"] == backbone) & (table["state"] != "FAIL") & (table["epochs"] >= epochs)]
    own = own[own["duplicate_of"].isna() & own["branched_from"].isna()]
    own = own[~own["promoted_from"].isin(own["trial"])]
    within = curves[(curves["backbone"] == backbone) & (curves["epoch"] <= epochs) & curves["trial"].isin(own["trial"])]
    grouped = within[np.isfinite(within["value"])].groupby("trial")["value"]
    best = grouped.min() if info.direction == "min" else grouped.max()
    return {int(number): float(value) for number, value in best.items()}


def importances(findings: Findings, trials: Comparable) -> dict[str, float]:
    """How much each parameter matters for being among the best, by PED-ANOVA; they add up to 1.

    Conditional parameters are judged where they were asked for. Parameters that never varied are left out.

    Args:
        findings: the run.
        trials: those to judge by.

    Returns:
        Shares by parameter, largest first; empty with fewer than two trials or no parameter that varied.

    Source:
        Watanabe, Bansal & Hutter 2023, IJCAI, arXiv:2304.10255.
    """
    import optuna

    space, kept = findings.trials.spaces[trials.backbone], []
    for number, value in trials.values.items():
        params = findings.trials.params[trials.backbone, number]
        distributions = {name: space[name] for name in params}
        # A trial from before a parameter became one of another kind stands beside no others.
        with contextlib.suppress(ValueError):
            kept.append(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    varied = [name for name in space if len({repr(one.params[name]) for one in kept if name in one.params}) > 1]
    if not varied or len({one.value for one in kept}) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if findings.info.direction == "min" else "maximize")
    study.add_trials(kept)
    with warnings.catch_warnings():
        # Of few trials the page warns itself.
        warnings.filterwarnings("ignore", message="Some regimes for parameter")
        found = optuna.importance.get_param_importances(study, params=varied)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def transfer_kind(config: dict[str, object], most_stages: int) -> str | None:
    """How much of a backbone with initial weights is trained; `KINDS` in words.

    Args:
        config: `TrainConfig.to_dict()` of the trial.
        most_stages: the largest number of trained stages that the space allows.
    """
    if config.get("weights") in (None, "none"):
        return KINDS[0]
    stages = config.get("trainable_stages")
    if stages is None:
        return KINDS[3]
    if not isinstance(stages, int):
        return None
    return KINDS[1] if stages == 0 else KINDS[3] if stages >= most_stages else KINDS[2]


def transfer(findings: Findings, backbone: str) -> dict[int, dict[str, list[float]]]:
    """Values of a backbone's trials by how much of it was trained, each after the same number of epochs.

    Returns:
        For each number of epochs that trials of at least two kinds reached, ascending, the values of each kind; empty
        for a space without such.
    """
    configs = findings.trials.configs
    stages = [
        int(found)
        for (name, _), config in configs.items()
        if name == backbone and isinstance(found := config.get("trainable_stages"), int)
    ]
    high = getattr(findings.trials.spaces.get(backbone, {}).get("trainable_stages"), "high", None)
    most = int(high) if high is not None else max(stages, default=1)
    found = {}
    for epochs in sorted({*findings.info.rungs, findings.info.max_epochs}):
        groups: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number, value in values_at(findings.trials, backbone, epochs, findings.info).items():
            kind = transfer_kind(configs.get((backbone, number), {}), most)
            if kind is not None and (backbone, number) in configs:
                groups[kind].append(value)
        groups = {kind: values for kind, values in groups.items() if values}
        if len(groups) > 1:
            found[epochs] = groups
    return found


def median(values: Sequence[float]) -> float:
    """The middle of some values."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
