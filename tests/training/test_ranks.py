"""Two processes that train one network: the numbers of one process, and no fault in which one waits for the other."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from second_process import Together, together, weights
from shapes_survey import VOTES, make_shapes, small_config

from galaxy_models.config import AugmentConfig, CnnConfig, TrainConfig
from galaxy_models.errors import ConfigError, OutOfMemoryError
from galaxy_models.training.checkpoint import load_state, save_state
from galaxy_models.training.loop import Trainer
from galaxy_models.training.ranks import PeerError
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData

# 230 galaxies in batches of 29 and 28: two processes have 15 and 14 of some.
SIZES = (230, 61, 0)
# Of float32, unit roundoff 6e-8: a gradient sums over 29 images x 400 positions. Added in another order, one number
# after the other, it errs at random by sqrt(12,000) x 6e-8 of its terms' norm; kernels, which add in blocks, by less.
GRADIENT_TOLERANCE = 7e-6
NUM_UPDATES = 8


def exact_config(**changes: object) -> TrainConfig:
    """Everything that is the same in two processes: class weights, clipping and augmentation, but no dropout."""
    settings: dict[str, object] = {
        "cnn": CnnConfig(width=8, depth=2, norm="group"),
        "drop_rate": 0.0,
        "precision": "float32",
        "class_balance": "loss",
        "clip_grad_norm": 0.5,
        "optimizer": "sgd",
        "augment": AugmentConfig(rotation_deg=20.0, brightness=0.1, noise=0.01),
    }
    return small_config(**{**settings, **changes})


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("ranks") / "shapes", sizes=SIZES)


@pytest.fixture(scope="module")
def shapes(directory: Path) -> SurveyData:
    return SurveyData(directory)


@pytest.fixture(scope="module")
def pair(directory: Path) -> Iterator[Together]:
    with together(directory) as both:
        yield both


def alone(config: TrainConfig, survey: SurveyData) -> Trainer:
    return Trainer(config, survey, runtime=Runtime(threads=1))


def assert_alike(both: Trainer, one: Trainer, start: torch.Tensor) -> None:
    """Same weights, but for the errors of each update's gradient, which the next ones hand on."""
    moved = torch.linalg.norm(weights(one) - start)
    assert moved > 0.01
    assert torch.linalg.norm(weights(both) - weights(one)) < NUM_UPDATES * GRADIENT_TOLERANCE * moved


@pytest.mark.parametrize("norm", ["group", "none", "batch"])
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_two_processes_train_as_one(pair: Together, shapes: SurveyData, norm: str, micro_batch: int | None) -> None:
    if norm == "batch" and micro_batch is not None:
        # Sixteen images in both processes have one statistic: what one process sees in micro-batches of 8.
        pytest.skip("batch norms of micro-batches are those of other images")
    config = exact_config(cnn=CnnConfig(width=8, depth=2, norm=norm))
    one, both = alone(config, shapes), pair.begin(config, micro_batch=micro_batch)
    start = weights(one)
    expected, found = one.run_epoch(), pair.run_epoch()
    assert_alike(both, one, start)
    assert torch.equal(pair.other_weights(), weights(both))
    for name, value in expected.items():
        if "loss" in name or name.endswith("nll"):
            assert found[name] == pytest.approx(value, rel=1e-4), name
        if name.endswith("accuracy"):
            assert found[name] == pytest.approx(value, abs=0.02), name
    for name, tensor in one.model.state_dict().items():
        assert torch.allclose(both.model.state_dict()[name], tensor, rtol=1e-3, atol=1e-4), name
