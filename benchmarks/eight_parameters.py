"""A space file of eight parameters, for searches whose trials compute nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_models.config import CnnConfig, TrainConfig

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial) -> TrainConfig:
    """Some of each kind."""
    return TrainConfig(
        backbone="cnn",
        cnn=CnnConfig(width=trial.suggest_int("width", 8, 48, step=8), depth=trial.suggest_int("depth", 2, 5)),
        batch_size=trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
        optimizer=trial.suggest_categorical("optimizer", ["sgd", "adamw"]),
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        schedule=trial.suggest_categorical("schedule", ["cosine", "poly"]),
        drop_rate=trial.suggest_float("drop_rate", 0.0, 0.5),
    )
