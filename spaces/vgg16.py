"""VGG16: how much of the ImageNet network to retrain, and how.

It has no batch normalisation: gradients are clipped, and learning rates stay below those of younger networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from galaxy_models.config import AugmentConfig, TrainConfig

if TYPE_CHECKING:
    import optuna

# Its thirteen convolutions. Its two fully-connected layers, tied to everyday objects, are not part of the backbone.
NUM_STAGES = 13

# What both configurations below have.
common: dict[str, Any] = {
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup_epochs": 1.0,
    "drop_rate": 0.2,
    "label_smoothing": 0.0,
    "class_balance": "none",
    "any_angle": False,
    "shift": 0.0,
    "zoom": 1.0,
    "brightness": 0.0,
    "noise": 0.0,
}

# Tried first, in this order; of these, `--fix weights=none` leaves out the first. What one leaves out is drawn from the
# space.
named: list[dict[str, Any]] = [
    {
        **common,
        "weights": "imagenet",
        "trainable_stages": 13,
        "backbone_lr_scale": 0.2,
        "image_px": 128,
        "batch_size": 32,
        "learning_rate": 5e-4,
    },
    # From random weights it wants smaller steps, and more of them.
    {**common, "weights": "none", "image_px": 64, "batch_size": 16, "learning_rate": 2e-4},
]


def space(trial: optuna.Trial) -> TrainConfig:
    """One way to train the network; `--fix weights=none` where the ImageNet weights cannot be had."""
    weights = trial.suggest_categorical("weights", ["imagenet", "none"])
    trainable_stages, backbone_lr_scale = None, 1.0
    if weights == "imagenet":
        trainable_stages = trial.suggest_int("trainable_stages", 0, NUM_STAGES)
        if trainable_stages > 0:
            backbone_lr_scale = trial.suggest_float("backbone_lr_scale", 0.02, 1.0, log=True)
    return TrainConfig(
        backbone="vgg16",
        weights=weights,
        trainable_stages=trainable_stages,
        backbone_lr_scale=backbone_lr_scale,
        image_px=trial.suggest_categorical("image_px", [64, 96, 128]),
        batch_size=trial.suggest_categorical("batch_size", [16, 32, 64]),
        schedule=trial.suggest_categorical("schedule", ["cosine", "poly"]),
        warmup_epochs=trial.suggest_float("warmup_epochs", 0.0, 2.0, step=0.5),
        clip_grad_norm=1.0,
        drop_rate=trial.suggest_float("drop_rate", 0.0, 0.5),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.1),
        class_balance=trial.suggest_categorical("class_balance", ["none", "loss"]),
        augment=augmentation(trial),
        **optimiser(trial),
    )


def optimiser(trial: optuna.Trial) -> dict[str, Any]:
    """AdamW or SGD, each with its own learning rates and weight decays: theirs differ by powers of ten."""
    name = trial.suggest_categorical("optimizer", ["adamw", "sgd"])
    if name == "adamw":
        return {
            "optimizer": name,
            "learning_rate": trial.suggest_float("learning_rate", 5e-5, 2e-3, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.3, log=True),
        }
    return {
        "optimizer": name,
        "learning_rate": trial.suggest_float("sgd_learning_rate", 1e-3, 0.05, log=True),
        "weight_decay": trial.suggest_float("sgd_weight_decay", 1e-5, 1e-3, log=True),
        "momentum": trial.suggest_float("momentum", 0.8, 0.95),
    }


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
