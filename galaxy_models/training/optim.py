"""Optimisers and learning-rate schedules, from timm."""

import difflib
from typing import Any

from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import CosineLRScheduler, PolyLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch.nn import Parameter
from torch.optim import Optimizer

from galaxy_models.config import TrainConfig
from galaxy_models.errors import ConfigError
from galaxy_models.models.galaxy_model import GalaxyModel

STEP_FACTOR = 0.1
NUM_STEPS = 3


def check_optimizer(name: str) -> None:
    """Find out whether timm has an optimiser that the training loop can drive.

    Raises:
        ConfigError: unknown, or in need of second derivatives.
    """
    known = [known for known in list_optimizers() if known != "adahessian"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.5) or ["adamw", "sgd"]
        raise ConfigError(
            f"optimizer: got {name!r}, expected one of timm's that need first derivatives only: "
            f"did you mean {', '.join(near)}?"
        )


def make_optimizer(config: TrainConfig, model: GalaxyModel) -> Optimizer:
    """Make the optimiser of a configuration.

    The first group of parameters is the head's, at `config.learning_rate`; the backbone's learn at that times
    `config.backbone_lr_scale`. Biases and normalisation layers, which are one-dimensional, are not decayed.

    Raises:
        ConfigError: an unknown optimiser, one whose package is missing, or one that refuses its settings.
    """
    check_optimizer(config.optimizer)
    groups = [
        *_groups(model.head_parameters(), config.learning_rate, config.weight_decay),
        *_groups(model.backbone_parameters(), config.learning_rate * config.backbone_lr_scale, config.weight_decay),
    ]
    options: dict[str, Any] = {}
    defaults = get_optimizer_info(config.optimizer).defaults or {}
    if config.momentum == 0 and defaults.get("nesterov"):
        # torch refuses Nesterov's look-ahead along no momentum.
        options["nesterov"] = False
    try:
        optimizer: Optimizer = create_optimizer_v2(
            groups,
            opt=config.optimizer,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            **options,
        )
    except (ImportError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"optimizer: {config.optimizer!r} cannot be made here ({error}): choose another, such as 'adamw'"
        ) from error
    return optimizer


def change_optimizer(optimizer: Optimizer, config: TrainConfig, model: GalaxyModel) -> None:
    """Let an optimiser go on with a configuration's learning rates and weight decay; what it has learned stays.

    Args:
        optimizer: of `make_optimizer`; a `Schedule` made before knows nothing of it.
        config: the new settings.
        model: whose parameters they are.
    """
    head = {id(parameter) for parameter in model.head_parameters()}
    for group in optimizer.param_groups:
        first = group["params"][0]
        learning_rate = config.learning_rate * (1.0 if id(first) in head else config.backbone_lr_scale)
        group["lr"] = group["initial_lr"] = learning_rate
        group["weight_decay"] = config.weight_decay if first.ndim > 1 else 0.0


def _groups(parameters: list[Parameter], learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    plain = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": plain, "lr": learning_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Schedule:
    """The learning rate of each update: a linear warm-up, then timm's cosine, poly, step or constant.

    With W warm-up updates of T in all, update i (from 0) has (i + 1) / W of the peak during the warm-up. After it
    `cosine` and `poly` (of power 1: a straight line) come down towards 0, which the update after the last would
    reach; `step` divides by ten after each third; `constant` stays.
    """

    def __init__(self, config: TrainConfig, optimizer: Optimizer, *, updates_per_epoch: int) -> None:
        total = config.epochs * updates_per_epoch
        # A warm-up longer than the run is cut: the last update has the peak.
        warmup = min(round(config.warmup_epochs * updates_per_epoch), total)
        # At least 2, of which timm's cosine makes no remark when the whole run is warm-up.
        decay = max(2, total - warmup + 1)
        self._scheduler = _make_scheduler(config.schedule, optimizer, warmup=warmup, decay=decay)

    def set_rates(self, update: int) -> None:
        """Set the optimiser's learning rates for an update; a function of its number (from 0) alone."""
        # timm's rate number 0 is that before the warm-up's first step: zero.
        self._scheduler.step_update(update + 1)


def _make_scheduler(name: str, optimizer: Optimizer, *, warmup: int, decay: int) -> Scheduler:
    common: dict[str, Any] = {"warmup_t": warmup, "warmup_lr_init": 0.0, "warmup_prefix": True, "t_in_epochs": False}
    if name == "cosine":
        return CosineLRScheduler(optimizer, t_initial=decay, **common)
    if name == "poly":
        return PolyLRScheduler(optimizer, t_initial=decay, power=1.0, **common)
    factor = STEP_FACTOR if name == "step" else 1.0
    return StepLRScheduler(optimizer, decay_t=decay / NUM_STEPS, decay_rate=factor, **common)
