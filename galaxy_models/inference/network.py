"""A trained network read from its weights file alone, with what is known of the survey that it learned from."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from galaxy_models.config import TrainConfig
from galaxy_models.errors import GalaxyError, WeightsError
from galaxy_models.models.galaxy_model import GalaxyModel
from galaxy_models.task import Task
from galaxy_models.training.checkpoint import load_model


@dataclass(frozen=True)
class Network:
    """A trained network in evaluation mode.

    Attributes:
        path: its weights file.
        model: the network, on the processor.
        config: the configuration it was trained with.
        task: what it answers.
        px: side of the images it sees, in pixels.
        survey_digest: identity of the survey it was trained on.
        survey: that survey's name; None where the file does not say.
        simulated: whether that survey's galaxies were drawn, not observed; None where the file does not say.
        stored_px: side of that survey's stored images, in pixels; `px` where the file does not say.
        crop: share of each image's side that was kept when they were made; None where the file does not say.
    """

    path: Path
    model: GalaxyModel
    config: TrainConfig
    task: Task
    px: int
    survey_digest: str
    survey: str | None
    simulated: bool | None
    stored_px: int
    crop: float | None


def load_network(path: Path) -> Network:
    """Rebuild a network from its weights file.

    Raises:
        WeightsError: the file is missing, damaged, or none that this project's training wrote.
    """
    header = read_description(path)
    try:
        model, config, task = load_model(path)
        px = int(header["px"])
        return Network(
            path=path,
            model=model,
            config=config,
            task=task,
            px=px,
            survey_digest=header["survey_digest"],
            survey=header.get("survey"),
            simulated=json.loads(header.get("simulated", "null")),
            stored_px=int(json.loads(header.get("stored_px", "null")) or px),
            crop=json.loads(header.get("crop", "null")),
        )
    except GalaxyError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise WeightsError(f"weights {path}: their description is damaged ({found}): restore the file") from None


def read_description(path: Path) -> dict[str, str]:
    """Read what a weights file says of itself, and none of its weights.

    Raises:
        WeightsError: the file is missing or no safetensors file.
    """
    if not path.is_file():
        raise WeightsError(f"weights {path}: there is no such file: check the path")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"weights {path}: {error}, expected a safetensors file: check the path") from None


def find_weights(place: Path) -> list[Path]:
    """The weights files that a path stands for: the file itself, or all below a folder, by name.

    Raises:
        WeightsError: there is nothing there, or a folder without weights.
    """
    if not place.is_dir():
        return [place]
    found = sorted(path for path in place.rglob("*.safetensors") if not path.name.startswith("."))
    if not found:
        raise WeightsError(
            f"{place}: found no .safetensors file below it, expected a network's weights: check the path"
        )
    return found
