"""Operations, memory and speed of answers."""

import time
from pathlib import Path

import pytest
import torch
from shapes_survey import CLASSES, PX, make_shapes, small_config

from galaxy_models.config import CnnConfig
from galaxy_models.inference.cost import count_flops, measure_memory_mb, measure_speed
from galaxy_models.models.galaxy_model import GalaxyModel, build_model
from galaxy_models.training.runtime import Precision
from galaxy_models.training.survey import SurveyData

FLOAT32 = Precision(torch.device("cpu"), torch.float32)


def _network(width: int) -> GalaxyModel:
    return build_model(small_config(cnn=CnnConfig(width=width, depth=1)), CLASSES, px=PX).eval()


def test_operations_are_those_of_the_convolution_and_the_head() -> None:
    convolution = 2 * (3 * 3 * 3) * 8 * PX * PX
    head = 2 * 8 * 3
    assert count_flops(_network(8), image_px=PX) == convolution + head


def test_operations_that_cannot_be_counted_are_none() -> None:
    assert count_flops(build_model(small_config(), CLASSES, px=PX).eval(), image_px=1) is None


def test_memory_holds_the_images_of_a_batch_between_the_layers() -> None:
    model = _network(32)
    # 64 images of 128 px in 32 channels of float32, before the pooling.
    activations_mb = 64 * 32 * 128 * 128 * 4 / 1e6
    first, again = (measure_memory_mb(model, image_px=128, precision=FLOAT32) for _ in range(2))
    assert first is not None
    assert again is not None
    assert activations_mb < first < 3 * activations_mb
    assert again == pytest.approx(first, rel=0.5)


def test_speed_is_galaxies_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = SurveyData(make_shapes(tmp_path / "shapes", sizes=(128, 5, 5)))
    model, batches = _network(4), []

    def slow(images: torch.Tensor) -> torch.Tensor:
        batches.append(len(images))
        time.sleep(0.1)
        return torch.zeros(len(images), 3)

    monkeypatch.setattr(model, "forward", slow)
    speed = measure_speed(model, survey.split("train"), CLASSES, image_px=PX, precision=FLOAT32)
    assert batches == [64, 64, 64]
    assert 128 / 0.4 < speed <= 128 / 0.2
