"""Initial weights: reading them, fitting them to a backbone, and finding out beforehand whether that will work."""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from galaxy_models.config import TrainConfig
from galaxy_models.errors import WeightsError
from galaxy_models.models.backbones import create_backbone, native_px, pretrained_cfg
from galaxy_models.models.locate import FoundWeights, locate_weights

NAMED_IN_MESSAGE = 3
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each colour, of images in [0, 1], that weights were trained with."""

    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)


def check_weights(config: TrainConfig, *, weights_dir: Path | None = None) -> None:
    """Find out, without building or training anything, whether a configuration's initial weights can be had.

    Files are compared with the network by their tensors' names and shapes. Weights from the network are
    downloaded to the cache here, once.

    Args:
        config: the configuration, of which the backbone, its shape, weights and trainable stages matter.
        weights_dir: a folder of `<timm name>.safetensors`, looked in before the network.

    Raises:
        ConfigError: unknown timm model, or a size or number of stages it does not have.
        WeightsError: the weights cannot be found, read or fitted to the backbone.
    """
    with torch.device("meta"):
        backbone, _ = create_backbone(config, px=config.image_px or native_px(config))
    if config.weights != "none":
        found = locate_weights(config, weights_dir=weights_dir)
        tensors = _read_tensors(found.path, shapes_only=True)
        _select_for(backbone, tensors, found.path)


def load_weights_into(backbone: nn.Module, config: TrainConfig, *, weights_dir: Path | None = None) -> Normalisation:
    """Replace a backbone's weights by those that the configuration names.

    Args:
        backbone: the network, changed in place.
        config: names the weights; not `none`.
        weights_dir: as in `check_weights`.

    Returns:
        The normalisation that the weights expect.

    Raises:
        WeightsError: the weights cannot be found, read or fitted to the backbone.
    """
    found = locate_weights(config, weights_dir=weights_dir)
    tensors = _read_tensors(found.path, shapes_only=False)
    normalisation = _normalisation(config, found, tensors)
    backbone.load_state_dict(_select_for(backbone, tensors, found.path), strict=False)
    return normalisation


def _read_tensors(path: Path, *, shapes_only: bool) -> dict[str, Tensor]:
    """Read a file's tensors by name; with `shapes_only`, safetensors files give empty ones on the meta device."""
    if not path.is_file():
        raise WeightsError(f"weights {path}: there is no such file: check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, shapes_only=shapes_only)
    return _read_pickled(path)


def _read_safetensors(path: Path, *, shapes_only: bool) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if shapes_only:
                return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names}
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"weights {path}: it cannot be read as safetensors ({error}): download or save it again"
        ) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights {path}: refused, since it holds more than tensors, which could run code when loaded: "
            "save the state dict alone, best as .safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"weights {path}: torch cannot read it ({error}), expected a state dict: download or save it again"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"weights {path}: got a {type(content).__name__}, expected a state dict: names and tensors")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _select_for(backbone: nn.Module, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Choose the backbone's tensors out of a file; a classifier or head in it is left out.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    if any(name.startswith("backbone.") for name in tensors):
        tensors = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    else:
        # timm keeps, beside a model, what renames older files' tensors and resizes position embeddings.
        convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            tensors = convert(tensors, backbone)
    wanted = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(
            f"weights {path}: they lack {_some(missing)} of {type(backbone).__name__}'s {len(wanted)} tensors: "
            "they belong to another network, or another shape of this one"
        )
    misfits = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if misfits:
        raise WeightsError(
            f"weights {path}: got {_some(misfits)}: they belong to another shape of {type(backbone).__name__}"
        )
    return {name: tensors[name] for name in wanted if name in tensors}


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_IN_MESSAGE
    return ", ".join(names[:NAMED_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


def _normalisation(config: TrainConfig, found: FoundWeights, tensors: dict[str, Tensor]) -> Normalisation:
    """A model of this project carries its own; else the hub's record of the weights, else timm's of the network."""
    if any(name.startswith("backbone.") for name in tensors) and {"mean", "std"} <= set(tensors):
        return Normalisation(_triple(tensors["mean"].flatten().tolist()), _triple(tensors["std"].flatten().tolist()))
    if config.backbone == "cnn":
        return Normalisation()
    record = pretrained_cfg(config.backbone) | found.record
    return Normalisation(_triple(record["mean"]), _triple(record["std"]))


def _triple(values: Any) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
