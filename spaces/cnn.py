"""The custom network: how wide, deep and regularised, trained from random weights.

Made for a processor: an epoch of the dearest shape takes four times as long as one of the named shape. Images are seen
at the size they were converted to (`--px`), or at 48 pixels, which cost 0.6 of 64. A survey of 48 pixels or fewer is
seen as it is: the search then keeps `image_px` at None by itself, since enlarging gains nothing where no weights expect
it. Every stage halves the side, so 5 stages need 32 pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from galaxy_models.config import AugmentConfig, CnnConfig, TrainConfig

if TYPE_CHECKING:
    import optuna

# Tried first, in this order. What is left out of one is drawn from the space.
named: list[dict[str, Any]] = [
    {
        "width": 32,
        "depth": 4,
        "convs_per_stage": 1,
        "kernel": 3,
        "norm": "batch",
        "pool": "max",
        "image_px": None,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "drop_rate": 0.1,
        "label_smoothing": 0.0,
        "class_balance": "none",
        "any_angle": False,
        "shift": 0.0,
        "zoom": 1.0,
        "brightness": 0.0,
        "noise": 0.0,
    },
]


def space(trial: optuna.Trial) -> TrainConfig:
    """One shape of the network and one way to train it."""
    return TrainConfig(
        backbone="cnn",
        cnn=shape(trial),
        # On real galaxies of 64 pixels 48 lost nothing in as many epochs, and 32 a little.
        image_px=cast("int | None", trial.suggest_categorical("image_px", [None, 48])),
        batch_size=trial.suggest_categorical("batch_size", [16, 32, 64]),
        optimizer="adamw",
        learning_rate=trial.suggest_float("learning_rate", 5e-4, 1e-2, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-3, 0.3, log=True),
        schedule=trial.suggest_categorical("schedule", ["cosine", "poly"]),
        warmup_epochs=trial.suggest_float("warmup_epochs", 0.0, 2.0, step=0.5),
        drop_rate=trial.suggest_float("drop_rate", 0.0, 0.5),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.1),
        class_balance=trial.suggest_categorical("class_balance", ["none", "loss"]),
        augment=augmentation(trial),
    )


def shape(trial: optuna.Trial) -> CnnConfig:
    """Stages and convolutions. `width` is that of single convolutions of 3 pixels; others get half of it and 8."""
    convs_per_stage = trial.suggest_int("convs_per_stage", 1, 2)
    # Two convolutions of 3 pixels in a row see as far as one of 5, so the large ones are for single ones.
    kernel = trial.suggest_categorical("kernel", [3, 5]) if convs_per_stage == 1 else 3
    width = trial.suggest_int("width", 32, 48, step=8)
    # What is dear for its width gets less of it, 24 to 32: at 40, two convolutions took 6 times the named shape's time.
    if convs_per_stage == 2 or kernel == 5:
        width = width // 2 + 8
    return CnnConfig(
        width=width,
        # Of 64 pixels 3 stages leave too many, and strides lost to pools at any depth, on two sets of real galaxies.
        depth=trial.suggest_int("depth", 4, 5),
        convs_per_stage=convs_per_stage,
        kernel=kernel,
        norm=trial.suggest_categorical("norm", ["batch", "group"]),
        pool=trial.suggest_categorical("pool", ["max", "avg"]),
    )


def augmentation(trial: optuna.Trial) -> AugmentConfig:
    """The sky has no up: the eight symmetries always, and perhaps the angles between them, which 45 degrees fill."""
    return AugmentConfig(
        symmetries=True,
        rotation_deg=45.0 if trial.suggest_categorical("any_angle", [False, True]) else 0.0,
        shift=trial.suggest_float("shift", 0.0, 0.1),
        zoom=trial.suggest_float("zoom", 1.0, 1.3),
        brightness=trial.suggest_float("brightness", 0.0, 0.3),
        noise=trial.suggest_float("noise", 0.0, 0.05),
    )
