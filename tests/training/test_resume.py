"""Training that was broken off goes on from its last state as if nothing had happened, bit for bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shapes_survey import make_shapes, small_config

from galaxy_models.config import AugmentConfig, CnnConfig, TrainConfig
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


def test_another_configuration_goes_on_from_a_state_as_if_it_had_trained_so_from_the_start(shapes, tmp_path) -> None:
    config = small_config(epochs=4, clip_grad_norm=1.0, schedule="cosine", class_balance="none")
    augment = replace(config.augment, rotation_deg=10.0, noise=0.1)
    other = replace(
        config, learning_rate=config.learning_rate * 3, weight_decay=0.2, backbone_lr_scale=0.5, clip_grad_norm=0.3,
        label_smoothing=0.2, class_balance="loss", augment=augment,
    )  # fmt: skip
    both = config.changed(2, other)
    first = _trainer(config, shapes)
    for _ in range(2):
        first.run_epoch()
    save_state(tmp_path / "state.pt", first.state_dict())
    straight, resumed = _trainer(both, shapes), _trainer(both, shapes)
    for _ in range(2):
        straight.run_epoch()
    resumed.load_state_dict(load_state(tmp_path / "state.pt"))
    rates = [straight.run_epoch()["learning_rate"], resumed.run_epoch()["learning_rate"]]
    assert rates[0] == rates[1] == pytest.approx(3 * first.run_epoch()["learning_rate"])
    assert [group["weight_decay"] for group in resumed.state_dict()["optimizer"]["param_groups"]] == [0.2, 0, 0.2, 0]
    _goes_on_alike(resumed, straight, epochs=1)


@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay": 5.0}, {"label_smoothing": 0.5}, {"class_balance": "sampling"}, {"clip_grad_norm": 1e-3},
        {"augment": AugmentConfig(noise=0.5)}, {"backbone_lr_scale": 0.0},
    ],
)  # fmt: skip
def test_every_change_makes_a_difference(shapes, change: dict[str, Any]) -> None:
    config = small_config(epochs=3, learning_rate=0.1, class_balance="none")
    trainers = [_trainer(one, shapes) for one in (config, config.changed(1, replace(config, **change)))]
    assert len({trainer.run_epoch()["train_loss"] for trainer in trainers}) == 1
    for trainer in trainers:
        trainer.run_epoch()
    plain, changed = (trainer.model.state_dict() for trainer in trainers)
    assert any(not torch.equal(plain[name], changed[name]) for name in plain)
