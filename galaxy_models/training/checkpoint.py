"""Weights and training states on disk: written whole or not at all, read without running any code in them."""

import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from galaxy_models.config import TrainConfig
from galaxy_models.data.manifest import Manifest
from galaxy_models.errors import WeightsError
from galaxy_models.models.galaxy_model import GalaxyModel, build_model
from galaxy_models.task import Task

FORMAT = "galaxy-search-1"


def describe_model(config: TrainConfig, task: Task, *, px: int, survey_digest: str) -> dict[str, str]:
    """Say in a weights file all that `load_model` needs.

    Args:
        config: the configuration it was trained with.
        task: what it answers.
        px: side of the images it sees, in pixels.
        survey_digest: identity of the survey it was trained on.

    Returns:
        Names and texts, for the header of a safetensors file.
    """
    return {
        "format": FORMAT,
        "config": json.dumps(config.to_dict()),
        "task": json.dumps(asdict(task)),
        "px": str(px),
        "survey_digest": survey_digest,
    }


def describe_survey(manifest: Manifest) -> dict[str, str]:
    """What a weights file says of its survey, beside `describe_model`, so that new images can be treated alike."""
    return {
        "survey": manifest.survey,
        "simulated": json.dumps(manifest.simulated),
        "stored_px": json.dumps(manifest.px),
        "crop": json.dumps(manifest.made_by.get("crop")),
    }


def save_weights(path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
    """Write a network's parameters and buffers as safetensors.

    Args:
        path: the file; its folder is made if need be.
        model: the network.
        metadata: see `describe_model` and `describe_survey`.
    """
    # Clones: safetensors refuses tensors that share memory, and wants them laid out plainly.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    # Written by Python, which tells a full disk from other faults; safetensors' own writer does not.
    _write_whole(path, lambda partial: partial.write_bytes(save(tensors, metadata=metadata)))


def load_weights(path: Path, model: nn.Module) -> dict[str, str]:
    """Read a network's parameters and buffers back.

    Args:
        path: a file of `save_weights`.
        model: the network, changed in place.

    Returns:
        The file's metadata.

    Raises:
        WeightsError: the file is missing or damaged, or of another network.
    """
    metadata, tensors = _read(path)
    _fill(model, tensors, path)
    return metadata


def load_model(path: Path) -> tuple[GalaxyModel, TrainConfig, Task]:
    """Rebuild a trained network from its weights file alone.

    Args:
        path: a file of `save_weights`, with the metadata of `describe_model`.

    Returns:
        The network in evaluation mode, the configuration it was trained with, and what it answers.

    Raises:
        WeightsError: the file is missing, damaged or has no description of a network.
    """
    metadata, tensors = _read(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"weights {path}: got the format {metadata.get('format')!r}, expected {FORMAT!r}: "
            "give a file that this project's training wrote"
        )
    config = TrainConfig.from_dict(json.loads(metadata["config"]))
    values = json.loads(metadata["task"])
    task = Task(values["kind"], tuple(values["names"]), tuple((left, right) for left, right in values["mirror_pairs"]))
    # Random weights, replaced at once: the initial ones may lie elsewhere by now.
    model = build_model(replace(config, weights="none", trainable_stages=None), task, px=int(metadata["px"]))
    _fill(model, tensors, path)
    return model.eval(), config, task


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a trainer's state, on whatever device it lies, as tensors of the processor.

    Args:
        path: the file; its folder is made if need be.
        state: see `Trainer.state_dict`; the caller may have added texts, numbers, and lists and dictionaries of them.

    Raises:
        OSError: the disk is full, or broken.
    """
    # Moved here, since torch would note each tensor's device in the file.
    _write_whole(path, lambda partial: _write_state(partial, _on_cpu(state)))


def load_state(path: Path) -> dict[str, Any]:
    """Read a trainer's state back, onto the processor.

    Raises:
        WeightsError: the file is missing, damaged, or holds anything but a state.
    """
    try:
        # torch compares no checksums, so that a flipped bit would train on; the zip file that it writes has them.
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is None:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(state, dict):
                return state
            found = f"got a {type(state).__name__} in it, expected the state of a trial"
        else:
            found = f"its part {damaged} is damaged"
    except zipfile.BadZipFile:
        found = "it is damaged, or cut short"
    except pickle.UnpicklingError:
        found = "it is damaged, or holds more than tensors and numbers"
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, NotImplementedError, zlib.error) as error:
        found = str(error)
    raise WeightsError(f"training state {path}: {found}: start the trial again")


def _write_state(path: Path, state: dict[str, Any]) -> None:
    # Into a file of Python's, which tells a full disk from other faults; torch's own writer does not.
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # Raised as torch closes its archive, in place of what kept it from being written.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"weights {path}: {error}, expected a safetensors file: check the path") from None


def _fill(model: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"weights {path}: of another network than expected: {error}") from None


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(partial)
        # On the disk before it takes the old file's place, or a power cut could leave neither.
        _sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
