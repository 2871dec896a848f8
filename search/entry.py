"""One trial's line in the ledger, as it is kept in the study."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from galaxy_models.task import Direction

Outcome = Literal["complete", "stopped", "failed"]
STATES: dict[Outcome, TrialState] = {
    "complete": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
_OUTCOMES = {state: outcome for outcome, state in STATES.items()}
EPOCH = "epoch:"
# Of an epoch: its seconds times the GPUs that the trial had; absent where it had none.
GPU_S = "gpu_s"
# Attributes that say whose configuration a trial runs again, to the full length.
FINALIST_OF, PROMOTED_FROM = "finalist_of", "promoted_from"
DUPLICATE_OF = "duplicate_of"
# The trial from whose state a trial of a population goes on, and after which of its epochs.
PARENT, BRANCHED_AFTER = "parent", "branched_after"
# Says which running trial of the same configuration a trial waits for, to take its result.
WAITS_FOR = "waits_for"
# Digest of the survey that a trial learns from; none where it learned from two, or nobody took it down.
SURVEY_DIGEST = "survey_digest"


@dataclass
class Entry:
    """One trial.

    Attributes:
        space: the name of its space.
        number: the trial's number in its study, from 0.
        trial_id: its name in the storage.
        config: `TrainConfig.to_dict()` of it.
        params: what was suggested, by parameter.
        best_value: best objective value so far, NaN before the first epoch.
        best_epoch: the epoch of that value, counted from 1; 0 before the first.
        epochs: epochs done, those of its forerunners included.
        seconds: time spent training and validating.
        outcome: how it ended; None while it runs.
        reason: why it ended, in words.
        rerun_of: the trial whose configuration it runs again to the full length, or None.
        survey_digest: of the survey that it learns from; None = unknown, or of two.
        parent: the trial from whose state it goes on; None = it begins from scratch.
        branched_after: epochs that its forerunners had trained then.
    """

    space: str
    number: int
    trial_id: int
    config: dict[str, Any]
    params: dict[str, Any]
    best_value: float = math.nan
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    outcome: Outcome | None = None
    reason: str = ""
    rerun_of: int | None = None
    survey_digest: str | None = None
    parent: int | None = None
    branched_after: int = 0

    @property
    def own_epochs(self) -> int:
        """Epochs that it has trained itself."""
        return self.epochs - self.branched_after

    @property
    def is_extra(self) -> bool:
        """Whether it is none of the trials that were asked for: it runs one again, or goes on from one."""
        return self.rerun_of is not None or self.parent is not None

    @property
    def max_epochs(self) -> int:
        """Epochs of the trial if nothing stops it."""
        return int(self.config["epochs"])

    @property
    def root(self) -> int:
        """The first trial of this configuration and seed."""
        return self.number if self.rerun_of is None else self.rerun_of

    @property
    def configuration(self) -> str:
        """The same for trials that differ in their seeds and lengths only."""
        return json.dumps({**self.config, "epochs": None, "seed": None}, sort_keys=True)

    @property
    def digest(self) -> str:
        """The same for trials of a study that would train alike but for their seeds, whatever their parameters."""
        alike = json.dumps([self.configuration, self.max_epochs, self.survey_digest])
        return hashlib.sha256(alike.encode()).hexdigest()

    def note(self, epoch: int, value: float, seconds: float, direction: Direction) -> None:
        """Take note of an epoch."""
        self.epochs = epoch
        self.seconds += seconds
        if better(value, self.best_value, direction):
            self.best_value, self.best_epoch = value, epoch


def better(value: float, other: float, direction: Direction) -> bool:
    """Whether one objective value beats another; anything finite beats NaN, and NaN beats nothing."""
    if not math.isfinite(value):
        return False
    return math.isnan(other) or (value < other if direction == "min" else value > other)


def epoch_metrics(trial: FrozenTrial) -> dict[int, Mapping[str, float]]:
    """What a trial recorded of each of its epochs, in their order."""
    names = (name for name in trial.user_attrs if name.startswith(EPOCH))
    return {epoch: trial.user_attrs[f"{EPOCH}{epoch}"] for epoch in sorted(int(name[len(EPOCH) :]) for name in names)}


def end_time(trial: FrozenTrial) -> datetime:
    """When a trial ended, which it has."""
    assert trial.datetime_complete is not None
    return trial.datetime_complete


def read_entry(space: str, trial: FrozenTrial, *, objective: str, direction: Direction) -> Entry:
    """Read a trial's line back from its study.

    Args:
        space: the name of its space.
        trial: as the study has it.
        objective: the metric's key, such as `val_nll`.
        direction: which way is better.
    """
    attrs = trial.user_attrs
    entry = Entry(space, trial.number, trial._trial_id, attrs.get("config", {"epochs": 0}), dict(trial.params))
    entry.parent, entry.branched_after = attrs.get(PARENT), attrs.get(BRANCHED_AFTER, 0)
    entry.epochs = entry.branched_after
    for epoch, metrics in epoch_metrics(trial).items():
        entry.note(epoch, metrics[objective], metrics["epoch_s"], direction)
    if DUPLICATE_OF in attrs:
        for step, value in sorted(trial.intermediate_values.items()):
            if better(value, entry.best_value, direction):
                entry.best_value, entry.best_epoch = value, step
    entry.outcome = _OUTCOMES.get(trial.state)
    entry.reason = attrs.get("reason", "")
    entry.rerun_of = attrs.get(FINALIST_OF, attrs.get(PROMOTED_FROM))
    entry.survey_digest = attrs.get(SURVEY_DIGEST)
    return entry
