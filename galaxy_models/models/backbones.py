"""Backbones by name: the custom network, and every image model of timm."""

import difflib
import inspect
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn

from galaxy_models.config import TrainConfig
from galaxy_models.errors import ConfigError
from galaxy_models.models.blueprint import Blueprint, BlueprintError
from galaxy_models.models.cnn import Cnn
from galaxy_models.models.freezing import freeze
from galaxy_models.models.undrawn import Undrawn

# timm's plain `xception` is a deprecated alias that has no weights.
TIMM_NAMES = {"xception": "legacy_xception"}
# The convolutions of these run out of pixels below; measured on shapes alone, as `min_px` does for any other.
NAMED_MIN_PX = {"cnn": 16, "inception_v3": 75, "vgg16": 32, "resnet50": 16, "xception": 16}
# What they make of an image, as `num_features` finds it, which takes it a fifth of a second.
NAMED_FEATURES = {"inception_v3": 2048, "vgg16": 512, "resnet50": 2048, "xception": 2048}
SMALLEST_PX = 16
# The family whose fully connected layers are left out.
VGG_FAMILY = "vgg"


def timm_name(backbone: str) -> str:
    """The name under which timm knows a backbone, such as `legacy_xception` for `xception`."""
    name = backbone.removeprefix("timm:")
    return TIMM_NAMES.get(name, name)


def create_backbone(config: TrainConfig, *, px: int, undrawn: Undrawn | None = None) -> tuple[nn.Module, int]:
    """Make a backbone with random weights, drawn from torch's global generator.

    Args:
        config: names the backbone, its shape and its drop-path rate.
        px: side of the images it will see, in pixels.
        undrawn: not active; where the draws of its weights wait. None = they are drawn as torch draws them.

    Returns:
        A module from (B, 3, px, px) normalised images to (B, F) features, and F.

    Raises:
        ConfigError: as `check_network`.
    """
    check_network(config, px=px)
    if config.cnn is not None:
        with undrawn or nullcontext():
            cnn = Cnn(config.cnn)
        return cnn, cnn.num_features
    name, width = timm_name(config.backbone), num_features(config.backbone, px)
    # Each rate of drop-path makes a network of its own, which is not worth a blueprint.
    if undrawn is not None and config.drop_path_rate == 0:
        blueprint = _blueprint(name, px if _default_cfg(name)["fixed_input_size"] else 0)
        if blueprint is not None:
            return blueprint.build(undrawn), width
    options = {"drop_path_rate": config.drop_path_rate} if config.drop_path_rate > 0 else {}
    with undrawn or nullcontext():
        return _create_timm(name, px, **options), width


def check_network(config: TrainConfig, *, px: int) -> None:
    """Check that a configuration's network exists and takes its images, on shapes alone: quick, without weights.

    Args:
        config: the configuration.
        px: side of the images it will see, in pixels.

    Raises:
        ConfigError: unknown timm model, images too small for it, a drop-path rate for one that has no
            drop-path, or more trainable stages than it has.
    """
    if config.cnn is not None:
        smallest = 2**config.cnn.depth
        if px < smallest:
            raise ConfigError(
                f"cnn.depth: got {config.cnn.depth} for images of {px} px, expected at least {smallest} px: "
                "each stage halves the side; use fewer stages or larger images"
            )
    else:
        num_features(config.backbone, px)
    if config.drop_path_rate == 0 and not config.trainable_stages:
        return
    if config.cnn is not None:
        with torch.device("meta"):
            skeleton: nn.Module = Cnn(config.cnn)
    else:
        skeleton = _skeleton(timm_name(config.backbone))
    if config.drop_path_rate > 0 and "drop_path_rate" not in inspect.signature(type(skeleton)).parameters:
        raise ConfigError(
            f"drop_path_rate: got {config.drop_path_rate:g}, but the backbone {config.backbone} has no drop-path: "
            "leave it at 0 (drop_rate works for every backbone)"
        )
    freeze(skeleton, config.trainable_stages)


@lru_cache(maxsize=16)
def _skeleton(name: str) -> nn.Module:
    return _make_skeleton(name, int(_default_cfg(name)["input_size"][-1]))


def _make_skeleton(name: str, px: int) -> nn.Module:
    with torch.device("meta"), Undrawn():
        return _create_timm(name, px).eval()


@lru_cache(maxsize=16)
def _blueprint(name: str, px: int) -> Blueprint | None:
    try:
        return Blueprint(lambda: _create_timm(name, px))
    except BlueprintError:
        return None


@lru_cache(maxsize=64)
def num_features(backbone: str, px: int) -> int:
    """Length of the feature vector that a timm backbone makes of an image, found on shapes alone.

    Raises:
        ConfigError: unknown timm model, or one that does not take images of this side.
    """
    if backbone in NAMED_FEATURES and px >= NAMED_MIN_PX[backbone]:
        return NAMED_FEATURES[backbone]
    try:
        return _num_features(timm_name(backbone), px)
    except (RuntimeError, AssertionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"backbone {backbone}: images of {px} px do not go through it ({error}), "
            f"expected at least {min_px(backbone)} px: set image_px"
        ) from error


@lru_cache(maxsize=64)
def min_px(backbone: str) -> int:
    """Side of the smallest square image that a backbone takes, in pixels, from 16 up.

    For `cnn` this is what its shallowest shapes take: a network of `depth` stages takes `2 ** depth` pixels.

    Raises:
        ConfigError: unknown timm model.
    """
    if backbone in NAMED_MIN_PX:
        return NAMED_MIN_PX[backbone]
    name = timm_name(backbone)
    low, high = 1, SMALLEST_PX
    # Most networks take 16 pixels, so this doubles from there before it halves the distance.
    while high < _default_cfg(name)["input_size"][-1] and not _takes(name, high):
        low, high = high, 2 * high
    while high - low > 1 and high > SMALLEST_PX:
        middle = (low + high) // 2
        low, high = (low, middle) if _takes(name, middle) else (middle, high)
    return high


def _takes(name: str, px: int) -> bool:
    try:
        _num_features(name, px)
    except (RuntimeError, AssertionError, ValueError):
        return False
    return True


def _num_features(name: str, px: int) -> int:
    """Run an image's shape through the network: the meta device computes shapes and no numbers."""
    # Made anew only where a network is made for one side.
    network = _make_skeleton(name, px) if _default_cfg(name)["fixed_input_size"] else _skeleton(name)
    with torch.device("meta"), torch.no_grad():
        features = network(torch.empty(2, 3, px, px))
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise ConfigError(f"backbone timm:{name}: it gives no vector of features for an image, expected a classifier")
    return int(features.shape[1])


def _create_timm(name: str, px: int, **options: Any) -> nn.Module:
    cfg = _default_cfg(name)
    if cfg["fixed_input_size"]:
        options["img_size"] = px
    if cfg["family"] == VGG_FAMILY:
        # Its two fully-connected layers hold 119 of its 134 million weights and are tied to 1,000 everyday
        # classes. Features are the average of its convolutions instead; the layers are made tiny, then dropped.
        options["mlp_ratio"] = 1 / 4096
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    if cfg["family"] == VGG_FAMILY:
        model.pre_logits = nn.Identity()
    return model


def native_px(config: TrainConfig) -> int:
    """Side of the images a backbone was made for, in pixels."""
    if config.cnn is not None:
        return int(2**config.cnn.depth)
    return int(pretrained_cfg(config.backbone)["input_size"][-1])


def pretrained_cfg(backbone: str) -> dict[str, Any]:
    """What timm records of a backbone's ImageNet weights: `mean`, `std`, `hf_hub_id`, `url`, `custom_load`.

    Raises:
        ConfigError: unknown timm model.
    """
    return dict(_default_cfg(timm_name(backbone)))


@lru_cache(maxsize=64)
def _default_cfg(name: str) -> dict[str, Any]:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and name not in timm.list_pretrained(architecture + ".*")):
        known = timm.list_pretrained(architecture + ".*") if tag else timm.list_models()
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.5) or known[:4]
        raise ConfigError(f"backbone: timm has no model {name!r}: did you mean {', '.join(near)}?")
    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None
    values = cfg.to_dict()
    values["fixed_input_size"] = bool(values.get("fixed_input_size"))
    values["family"] = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    return dict(values)
