"""Training that was broken off goes on from its last state as if nothing had happened, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from shapes_survey import make_shapes, small_config

from galaxy_models.config import CnnConfig, TrainConfig
from galaxy_models.errors import WeightsError
from galaxy_models.training import loop
from galaxy_models.training.checkpoint import load_state, save_state
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Precision, Runtime
from galaxy_models.training.survey import SurveyData

RUNTIME = Runtime(threads=1)
TIMES = {"epoch_s", "data_wait_share", "images_per_s", "energy_j", "cpu_energy_j", "gpu_energy_j"}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> SurveyData:
    return SurveyData(make_shapes(tmp_path_factory.mktemp("resume") / "shapes"))


def _trainer(config: TrainConfig, survey: SurveyData, **options: Any) -> Trainer:
    return Trainer(config, survey, runtime=RUNTIME, **options)


def _goes_on_alike(resumed: Trainer, straight: Trainer, *, epochs: int) -> None:
    for _ in range(epochs):
        found, expected = resumed.run_epoch(), straight.run_epoch()
        assert {k: v for k, v in found.items() if k not in TIMES} == {
            k: v for k, v in expected.items() if k not in TIMES
        }
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    expected_state, found_state = straight.state_dict(), resumed.state_dict()
    assert found_state["scaler"] == expected_state["scaler"]
    for number, values in expected_state["optimizer"]["state"].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(found_state["optimizer"]["state"][number][name]))


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("class_balance", ["sampling", "loss"])
def test_new_trainer_goes_on_from_the_file(shapes, tmp_path: Path, optimizer, schedule, class_balance) -> None:
    config = small_config(
        optimizer=optimizer, schedule=schedule, class_balance=class_balance, epochs=3, clip_grad_norm=1.0
    )
    assert config.cnn == CnnConfig(width=8, depth=2, norm="batch")
    assert config.drop_rate > 0
    assert config.augment.rotation_deg > 0
    straight = _trainer(config, shapes)
    straight.run_epoch()
    save_state(tmp_path / "state.pt", straight.state_dict() | {"progress": {"best": 0.5, "space": "cnn"}})
    state = load_state(tmp_path / "state.pt")
    assert state["progress"] == {"best": 0.5, "space": "cnn"}
    resumed = _trainer(config, shapes)
    resumed.load_state_dict(state)
    assert resumed.epoch == 1
    _goes_on_alike(resumed, straight, epochs=2)


class _PowerCutError(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("moment", [3, 9])
def test_a_part_of_an_epoch_is_forgotten(shapes, tmp_path: Path, monkeypatch, optimizer, moment) -> None:
    """Broken off in the second epoch, in its fourth update or after its last, while it is validated."""
    config = small_config(optimizer=optimizer, epochs=3)
    straight, cut = _trainer(config, shapes), _trainer(config, shapes)
    straight.run_epoch()
    cut.run_epoch()
    save_state(tmp_path / "state.pt", cut.state_dict())
    calls: list[int] = []

    def break_off(*_: object) -> None:
        calls.append(len(calls))
        if len(calls) > moment:
            raise _PowerCutError

    handle = cut.model.register_forward_pre_hook(break_off)
    with pytest.raises(_PowerCutError):
        cut.run_epoch()
    handle.remove()
    cut.load_state_dict(load_state(tmp_path / "state.pt"))
    _goes_on_alike(cut, straight, epochs=2)


def test_micro_batches_are_resumed(shapes, tmp_path: Path) -> None:
    config = small_config(epochs=2)
    straight = _trainer(config, shapes, micro_batch=8)
    straight._eval_batch.size = 16
    straight.run_epoch()
    save_state(tmp_path / "state.pt", straight.state_dict())
    resumed = _trainer(config, shapes)
    resumed.load_state_dict(load_state(tmp_path / "state.pt"))
    assert (resumed.micro_batch, resumed._eval_batch.size) == (8, 16)
    _goes_on_alike(resumed, straight, epochs=1)


@pytest.mark.parametrize(("begun_with", "saved", "expected"), [(4, 8, 4), (8, 4, 4), (8, 8, 8), (None, 8, 8)])
def test_a_state_gives_no_images_back_that_did_not_fit(shapes, begun_with, saved, expected) -> None:
    config = small_config(epochs=2)
    resumed = _trainer(config, shapes, micro_batch=begun_with)
    resumed.load_state_dict(_trainer(config, shapes, micro_batch=saved).state_dict())
    assert resumed.micro_batch == expected


def test_float16_scales_its_gradients_and_resumes(shapes, tmp_path: Path, monkeypatch) -> None:
    # What graphics cards without bf16 do, run on the processor.
    monkeypatch.setattr(loop, "resolve_precision", lambda _name, device: Precision(device, torch.float16))
    config = small_config(epochs=2, clip_grad_norm=1.0)
    straight = _trainer(config, shapes)
    # Overflows in the first update, so that the scale to be resumed is not the one that every trainer starts with.
    straight._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    straight.run_epoch()
    assert straight.state_dict()["scaler"]["scale"] < 2.0**40
    save_state(tmp_path / "state.pt", straight.state_dict())
    resumed = _trainer(config, shapes)
    assert resumed.state_dict()["scaler"] != straight.state_dict()["scaler"]
    resumed.load_state_dict(load_state(tmp_path / "state.pt"))
    _goes_on_alike(resumed, straight, epochs=1)


@pytest.mark.parametrize("changes", [{"cnn": CnnConfig(width=12, depth=2)}, {"cnn": CnnConfig(width=8, depth=3)}])
def test_state_of_another_network_is_refused(shapes, changes) -> None:
    other = _trainer(small_config(**changes), shapes)
    with pytest.raises(WeightsError, match="training state: it is of another configuration than this trial's"):
        _trainer(small_config(), shapes).load_state_dict(other.state_dict())


def test_what_is_no_state_of_a_trainer_is_refused(shapes) -> None:
    with pytest.raises(WeightsError, match=r"of another configuration .*'model'.*start the trial again"):
        _trainer(small_config(), shapes).load_state_dict({"progress": {}})


@pytest.mark.parametrize("entry", ["model", "optimizer", "scaler", "micro_batch", "eval_batch", "epoch"])
def test_a_state_that_lacks_an_entry_is_refused(shapes, entry: str) -> None:
    trainer = _trainer(small_config(), shapes)
    state = {key: value for key, value in trainer.state_dict().items() if key != entry}
    with pytest.raises(WeightsError, match=f"'{entry}'.*start the trial again"):
        trainer.load_state_dict(state)


@pytest.mark.parametrize("value", [None, [], "text"])
@pytest.mark.parametrize("entry", ["model", "optimizer", "micro_batch", "eval_batch", "epoch"])
def test_a_state_with_a_foreign_entry_is_refused(shapes, entry: str, value: object) -> None:
    trainer = _trainer(small_config(), shapes)
    with pytest.raises(WeightsError, match="start the trial again"):
        trainer.load_state_dict(trainer.state_dict() | {entry: value})
