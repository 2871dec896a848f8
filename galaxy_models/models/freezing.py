"""Which part of a backbone is trained: its last stages, as timm groups them."""

from itertools import chain
from typing import Any

from timm.models import group_parameters
from torch import nn

from galaxy_models.errors import ConfigError


def list_stages(backbone: nn.Module) -> list[list[str]]:
    """Name each stage's parameters, from the image to the features.

    A final normalisation on its own counts as part of the last stage.

    Raises:
        ConfigError: the backbone does not tell its stages.
    """
    try:
        matcher: Any = backbone.group_matcher(coarse=True)  # type: ignore[operator]
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"trainable_stages: {type(backbone).__name__} does not tell its stages: use 0 (the head only) or None (all)"
        ) from error
    groups = group_parameters(backbone, matcher)
    stages = [list(groups[index]) for index in sorted(groups)]
    parameters = dict(backbone.named_parameters())
    if len(stages) > 1 and all(parameters[name].ndim <= 1 for name in stages[-1]):
        stages[-2:] = [stages[-2] + stages[-1]]
    return stages


def freeze(backbone: nn.Module, trainable_stages: int | None) -> None:
    """Let only the last stages learn.

    Args:
        backbone: the network; its parameters' `requires_grad` is set.
        trainable_stages: how many of the last stages learn; 0 = none, None = all.

    Raises:
        ConfigError: more stages than there are. Two values that mean the same would mislead a search.
    """
    if trainable_stages is None:
        return
    if trainable_stages == 0:
        backbone.requires_grad_(False)
        return
    stages = list_stages(backbone)
    if trainable_stages > len(stages):
        raise ConfigError(
            f"trainable_stages: got {trainable_stages}, but {type(backbone).__name__} has {len(stages)} stages: "
            "use None to train all"
        )
    frozen = set(chain.from_iterable(stages[: len(stages) - trainable_stages]))
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name not in frozen)


def hold_frozen_modules(backbone: nn.Module) -> None:
    """Put every wholly frozen module in evaluation mode: its batch statistics stay, and nothing is dropped in it."""
    for module in backbone.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
