"""Two processes that train one network: the numbers of one process, and no fault in which one waits for the other."""

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
from galaxy_models.training.ranks import PeerError, Team, open_store
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
def pair() -> Iterator[Together]:
    with together() as both:
        yield both


def alone(config: TrainConfig, survey: SurveyData) -> Trainer:
    return Trainer(config, survey, runtime=Runtime(threads=1))


def assert_alike(both: Trainer, one: Trainer, start: torch.Tensor) -> None:
    """Same weights, but for the errors of each update's gradient, which the next ones hand on."""
    moved = torch.linalg.norm(weights(one) - start)
    assert moved > 0.01
    assert torch.linalg.norm(weights(both) - weights(one)) < NUM_UPDATES * GRADIENT_TOLERANCE * moved


@pytest.mark.parametrize(("norm", "micro_batch"), [("group", None), ("group", 4), ("none", None), ("batch", None)])
def test_two_processes_train_as_one(
    pair: Together, directory: Path, shapes: SurveyData, norm: str, micro_batch: int | None
) -> None:
    config = exact_config(cnn=CnnConfig(width=8, depth=2, norm=norm))
    one, both = alone(config, shapes), pair.begin(config, directory, micro_batch=micro_batch)
    start = weights(one)
    expected, found = one.run_epoch(), pair.run_epoch()
    assert_alike(both, one, start)
    assert torch.equal(pair.other_weights(), weights(both))
    for name, value in expected.items():
        if name.endswith(("loss", "nll")):
            assert found[name] == pytest.approx(value, rel=1e-4), name
        elif name.endswith("accuracy"):
            # One galaxy of 61 between two classes may go over.
            assert found[name] == pytest.approx(value, abs=0.02), name
    for name, tensor in one.model.state_dict().items():
        assert torch.allclose(both.model.state_dict()[name], tensor, rtol=1e-3, atol=1e-4), name


def test_all_random_parts_and_votes_and_half_precision_run_and_learn(pair: Together, tmp_path: Path) -> None:
    directory = make_shapes(tmp_path / "votes", task=VOTES, sizes=(120, 40, 0))
    config = small_config(epochs=2, precision="bf16")
    both = pair.begin(config, directory)
    first, second = pair.run_epoch(), pair.run_epoch()
    assert second["train_loss"] < first["train_loss"]
    assert torch.equal(pair.other_weights(), weights(both))
    one = alone(config, SurveyData(directory))
    # Dropout draws otherwise, which the first epoch alone hardly shows.
    assert first["val_rmse"] == pytest.approx(one.run_epoch()["val_rmse"], rel=0.1)


def test_a_checkpoint_of_two_processes_goes_on_in_two_and_in_one(
    pair: Together, directory: Path, shapes: SurveyData, tmp_path: Path
) -> None:
    config = exact_config(cnn=CnnConfig(width=8, depth=2), optimizer="adamw")
    both = pair.begin(config, directory)
    pair.run_epoch()
    start = weights(both)
    save_state(tmp_path / "state.pt", both.state_dict())
    expected = pair.run_epoch()
    end = weights(both)

    again = pair.begin(config, directory)
    again.load_state_dict(load_state(tmp_path / "state.pt"))
    found = pair.run_epoch()
    assert torch.equal(weights(again), end)
    assert torch.equal(pair.other_weights(), end)
    assert (found["val_nll"], found["epoch"]) == (expected["val_nll"], 2)

    one = alone(config, shapes)
    one.load_state_dict(load_state(tmp_path / "state.pt"))
    one.run_epoch()
    # AdamW divides a gradient by its own size: where that is next to nothing, roundings show whole.
    assert torch.linalg.norm(weights(one) - end) < 0.01 * torch.linalg.norm(end - start)


def test_a_loss_that_is_no_number_in_one_process_ends_both_in_that_step(
    pair: Together, directory: Path, shapes: SurveyData
) -> None:
    both = pair.begin(exact_config(), directory, plant="no number")
    seen = []
    both.model.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    metrics = pair.run_epoch()
    assert metrics["diverged"] == 1
    assert seen == [True] * 3
    assert torch.isfinite(weights(both)).all()


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("plant", ["memory", "memory in backward"])
def test_memory_that_runs_out_in_one_process_halves_in_both(
    pair: Together, directory: Path, plant: str, norm: str
) -> None:
    config = exact_config(cnn=CnnConfig(width=8, depth=2, norm=norm))
    both = pair.begin(config, directory, plant=plant)
    halved = pair.run_epoch()
    # Fifteen images in the fuller process: 15, 8 and 4 at once.
    assert halved["micro_batch"] == 4
    end = weights(both)
    remembered = pair.begin(config, directory, micro_batch=4)
    assert pair.run_epoch()["train_loss"] == halved["train_loss"]
    if norm == "group":
        assert torch.equal(weights(remembered), end)


def test_a_fault_in_one_process_ends_both_and_is_told_apart(pair: Together, directory: Path) -> None:
    pair.begin(exact_config(), directory, plant="bug")
    pair.send("run_epoch")
    with pytest.raises(PeerError, match="process 1 of this training met a fault"):
        pair.trainer.run_epoch()
    assert pair.answer() == "ZeroDivisionError: planted"
    # The other way round, with what no halving mends.
    both = pair.begin(exact_config(), directory)
    both.model.head.register_forward_pre_hook(_never_room)
    pair.send("run_epoch")
    with pytest.raises(OutOfMemoryError, match="a single image does not fit"):
        both.run_epoch()
    assert pair.answer().startswith("OutOfMemoryError: ")
    # Neither is any the worse for it.
    pair.begin(exact_config(), directory)
    assert pair.run_epoch()["diverged"] == 0


def _never_room(*_: object) -> None:
    raise torch.OutOfMemoryError("planted")


def test_every_process_needs_a_galaxy_of_every_batch(shapes: SurveyData) -> None:
    store = open_store("127.0.0.1", 64)
    with pytest.raises(ConfigError, match=r"got batches, or .* of 28 galaxies for 64 processes, expected one for each"):
        Trainer(exact_config(), shapes, runtime=Runtime(), ranks=Team(store, index=0, num=64))
