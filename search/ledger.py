"""Writes what happens to trials into their studies, as it happens.

Tune places and stops trials; the ledger is told of it and keeps the studies, which are the one record.
It knows nothing of Ray, so a simulation can drive it too.
"""

import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from galaxy_models.seeds import derive_seed
from galaxy_models.task import Direction
from search.space import Space

Outcome = Literal["complete", "stopped", "failed"]
_STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass
class Entry:
    """One trial's line in the ledger.

    Attributes:
        space: the name of its space.
        trial: the study's trial.
        config: `TrainConfig.to_dict()` of it.
        best_value: best objective value so far, NaN before the first epoch.
        best_epoch: the epoch of that value, counted from 1; 0 before the first.
        epochs: epochs done.
        seconds: time spent training and validating.
        outcome: how it ended; None while it runs.
        reason: why it ended, in words.
    """

    space: str
    trial: optuna.Trial
    config: dict[str, Any]
    best_value: float = math.nan
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def number(self) -> int:
        """The trial's number in its study, from 0."""
        return self.trial.number


@dataclass
class Ledger:
    """All trials of a run, each space's in its own study.

    Attributes:
        spaces: the spaces by name, in the order in which they take turns.
        studies: their studies by name.
        num_trials: trials each space gets.
        max_epochs: epochs of a trial that is not stopped.
        objective: the result's key that is optimised, such as `val_nll`.
        direction: which way is better.
        seed: the run's seed.
        overrides: fields of TrainConfig that the command line sets for every trial.
        entries: all trials by key, in the order of their start.
        live: those that have not ended.
        started: number of trials started, by space.
        best: the best ended trial that did not fail, by space.
        given_up: why a space gets no more trials, by space.
    """

    spaces: Mapping[str, Space]
    studies: Mapping[str, optuna.Study]
    num_trials: int
    max_epochs: int
    objective: str
    direction: Direction
    seed: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    live: dict[str, Entry] = field(default_factory=dict)
    started: dict[str, int] = field(default_factory=dict)
    best: dict[str, Entry] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)

    def next_space(self) -> str | None:
        """The space whose turn it is: the one with the fewest trials; None when all have theirs."""
        open_spaces = [
            name for name in self.spaces if name not in self.given_up and self.started.get(name, 0) < self.num_trials
        ]
        return min(open_spaces, key=lambda name: self.started.get(name, 0), default=None)

    def start(self, key: str, space: str) -> Entry:
        """Ask a space's sampler for a trial.

        Args:
            key: the caller's name for the trial.
            space: the space's name.

        Raises:
            SpaceError: the space file failed.
        """
        trial = self.studies[space].ask()
        try:
            config = self.spaces[space].config(trial)
        except Exception as error:
            reason = "".join(traceback.format_exception_only(error)).strip()
            trial.set_user_attr("reason", reason)
            self.studies[space].tell(trial, state=TrialState.FAIL)
            raise
        seed = derive_seed(self.seed, "trial", space, trial.number)
        config = replace(config, epochs=self.max_epochs, seed=seed, **self.overrides)
        entry = Entry(space, trial, config.to_dict())
        trial.set_user_attr("config", entry.config)
        self.entries[key] = self.live[key] = entry
        self.started[space] = self.started.get(space, 0) + 1
        return entry

    def better(self, value: float, other: float) -> bool:
        """Whether one objective value beats another; anything beats NaN, and NaN beats nothing."""
        if math.isnan(value):
            return False
        return math.isnan(other) or (value < other if self.direction == "min" else value > other)

    def value_to_beat(self, space: str) -> float:
        """The best value of a space's ended trials, NaN before the first: a running one may still fail."""
        return self.best[space].best_value if space in self.best else math.nan

    def record(self, key: str, metrics: Mapping[str, float]) -> Entry:
        """Write one epoch's metrics.

        Args:
            key: the trial's key.
            metrics: what was measured; has `epoch` (from 1), `epoch_s` and the objective.
        """
        entry = self.entries[key]
        epoch, value = int(metrics["epoch"]), float(metrics[self.objective])
        entry.epochs = epoch
        entry.seconds += float(metrics["epoch_s"])
        entry.trial.set_user_attr(f"epoch:{epoch}", dict(metrics))
        if math.isfinite(value):
            entry.trial.report(value, step=epoch)
        if self.better(value, entry.best_value):
            entry.best_value, entry.best_epoch = value, epoch
        return entry

    def finish(self, key: str, outcome: Outcome, reason: str) -> Entry:
        """Close a trial in its study; a second call changes nothing.

        A complete trial's value is that of its best epoch, whose weights are the ones that are kept.
        """
        entry = self.entries[key]
        if entry.outcome is not None:
            return entry
        entry.outcome, entry.reason = outcome, reason
        del self.live[key]
        for name in ("best_epoch", "seconds", "reason"):
            entry.trial.set_user_attr(name, getattr(entry, name))
        value = entry.best_value if outcome == "complete" else None
        self.studies[entry.space].tell(entry.trial, value, state=_STATES[outcome])
        if outcome != "failed" and self.better(entry.best_value, self.value_to_beat(entry.space)):
            self.best[entry.space] = entry
        return entry

    def leader(self, space: str) -> Entry | None:
        """The trial with the best value so far in a space, running ones included; None before the first epoch."""
        leader = self.best.get(space)
        for entry in self.live.values():
            if entry.space == space and self.better(entry.best_value, leader.best_value if leader else math.nan):
                leader = entry
        return leader

    def finished(self, key: str) -> Entry:
        """Close a trial that ran as far as it was let: complete at the last epoch, stopped before."""
        entry = self.entries[key]
        if not entry.best_epoch:
            return self.finish(key, "failed", f"{self.objective} was never a finite number")
        if entry.epochs >= self.max_epochs:
            return self.finish(key, "complete", f"all {self.max_epochs} epochs")
        return self.finish(key, "stopped", f"stopped by ASHA after epoch {entry.epochs}")
