"""Trials of a population, run in a few places without a network and without Ray."""

import random
from pathlib import Path
from typing import Any

import optuna
from two_spaces import epoch, make_ledger

from search.ledger import Ledger

# Everything that can be varied, and a batch size and an image size, which cannot.
MIXED = """
from galaxy_models.config import AugmentConfig, TrainConfig


def space(trial):
    return TrainConfig(
        backbone="vgg16",
        batch_size=trial.suggest_int("batch", 8, 64),
        image_px=trial.suggest_categorical("px", [32, 64]),
        learning_rate=trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        label_smoothing=trial.suggest_float("smoothing", 0.0, 0.1, step=0.05),
        class_balance=trial.suggest_categorical("balance", ["none", "loss"]),
        augment=AugmentConfig(noise=trial.suggest_float("noise", 0.01, 0.1)),
    )
"""


def make(folder: Path, *, size: int, **options: Any) -> Ledger:
    options = {"names": "a", "sampler": "random", "max_epochs": 9, **options}
    return make_ledger(folder, num_trials=size, population=size, scheduler="pbt", **options)


def value_of(number: int, done: int) -> float:
    """A trial's value after an epoch: of no order that its number would tell."""
    return random.Random(number * 1000 + done).random()  # noqa: S311


class Places:
    """Runs trials, as many at once as there are places, and tells which of them trained which epoch."""

    def __init__(self, ledger: Ledger, num: int, values: Any = value_of) -> None:
        self.ledger, self._num, self._values = ledger, num, values
        self._running: list[str] = []
        self._num_keys = 0
        self.trained: list[tuple[int, int]] = []

    def step(self) -> bool:
        """Fill the places, and train an epoch of the trial that has had to wait longest; false without one."""
        while len(self._running) < self._num:
            self._num_keys += 1
            if self.ledger.start(str(self._num_keys)) is None:
                break
            self._running.append(str(self._num_keys))
        if not self._running:
            return False
        key = self._running.pop(0)
        entry = self.ledger.live[key]
        done = entry.epochs + 1
        self.trained.append((entry.number, done))
        value = self._values(entry.number, done)
        if value is None:
            self.ledger.finish(key, "failed", "planted")
        elif self.ledger.report(key, epoch(done, value)):
            self._running.append(key)
        return True


def study_of(ledger: Ledger) -> optuna.Study:
    return ledger.accounts["a"].study


def facts(one: optuna.trial.FrozenTrial) -> str:
    """All of a trial but for the time of day and the order of its attributes."""
    return repr(
        (one.number, one.state, one.params, one.values, one.intermediate_values, sorted(one.user_attrs.items()))
    )


def record(ledger: Ledger) -> list[str]:
    """All that the study says."""
    return [facts(one) for one in study_of(ledger).get_trials()]


# What can be changed has a value for each of two.
TWO_VALUES = """
from galaxy_models.config import TrainConfig


def space(trial):
    return TrainConfig(
        backbone="vgg16",
        batch_size=trial.suggest_int("batch", 8, 64),
        class_balance=trial.suggest_categorical("balance", ["none", "loss"]),
    )
"""
