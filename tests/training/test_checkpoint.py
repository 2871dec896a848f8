"""Weights and states on disk."""

import resource
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shapes_survey import CLASSES, small_config

from galaxy_models.errors import WeightsError
from galaxy_models.models.galaxy_model import GalaxyModel, build_model
from galaxy_models.task import Task
from galaxy_models.training.checkpoint import (
    describe_model,
    load_model,
    load_state,
    load_weights,
    save_state,
    save_weights,
)


@pytest.fixture
def model() -> GalaxyModel:
    built = build_model(small_config(), CLASSES, px=20)
    built.mean.fill_(0.25)
    return built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _save(path: Path, model: GalaxyModel) -> Path:
    save_weights(path, model, describe_model(small_config(seed=7), CLASSES, px=20, survey_digest="sha256:abc"))
    return path


def test_model_is_rebuilt_from_its_file_alone(model: GalaxyModel, tmp_path: Path) -> None:
    path = _save(tmp_path / "new" / "weights.safetensors", model)
    loaded, config, task = load_model(path)
    assert (config, task) == (small_config(seed=7), CLASSES)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    images = torch.rand(5, 3, 20, 20)
    # One is laid out channels last, the other is not: sums run in another order.
    torch.testing.assert_close(model.eval()(images), loaded(images))


def test_frozen_and_pretrained_configuration_needs_no_initial_weights(tmp_path: Path) -> None:
    task = Task("classes", ("cw", "acw", "other"), (("cw", "acw"),))
    config = small_config(weights=str(tmp_path / "gone.safetensors"), trainable_stages=1)
    model = build_model(small_config(), task, px=20)
    path = tmp_path / "weights.safetensors"
    save_weights(path, model, describe_model(config, task, px=20, survey_digest="sha256:abc"))
    _, found_config, found_task = load_model(path)
    assert (found_config, found_task) == (config, task)


def test_failed_write_keeps_the_old_file_and_leaves_nothing(model: GalaxyModel, tmp_path: Path) -> None:
    path = _save(tmp_path / "weights.safetensors", model)
    before = path.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # A write that the system ends half way, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            _save(path, model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_weights_of_another_network_are_refused(model: GalaxyModel, tmp_path: Path) -> None:
    path = _save(tmp_path / "weights.safetensors", model)
    other = build_model(small_config(), Task("classes", ("a", "b")), px=20)
    with pytest.raises(WeightsError, match="of another network than expected"):
        load_weights(path, other)


def test_missing_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights .*none\.safetensors: .*check the path"):
        load_model(tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x10\x00\x00")
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        load_model(damaged)


def test_weights_without_a_description_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="got the format None, expected 'galaxy-search-1'"):
        load_model(path)


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {"epoch": 3, "model": {"a": torch.rand(3)}, "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}}}
    save_state(tmp_path / "state.pt", state)
    found = load_state(tmp_path / "state.pt")
    assert found["epoch"] == 3
    assert torch.equal(found["model"]["a"], state["model"]["a"])
    assert torch.equal(found["optimizer"]["state"][0]["step"], torch.tensor(4.0))


def test_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": Path("/")}, tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="holds more than tensors and numbers: start the trial again"):
        load_state(tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="No such file"):
        load_state(tmp_path / "none.pt")
