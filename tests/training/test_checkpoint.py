"""Weights and states on disk."""

import errno
import os
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import numpy as np
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


def _state() -> dict[str, Any]:
    return {
        "epoch": 3,
        "model": {"a": torch.arange(2000.0)},
        "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        "progress": {"best_value": 0.25, "best_epoch": 2, "space": "cnn", "history": [1.0, 0.5], "tag": None},
    }


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = _state()
    save_state(tmp_path / "new" / "state.pt", state)
    found = load_state(tmp_path / "new" / "state.pt")
    assert torch.equal(found["model"].pop("a"), state["model"].pop("a"))
    assert found == state
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["state.pt"]


def test_state_is_written_as_tensors_of_the_processor(tmp_path: Path) -> None:
    # The meta device stands for a graphics card: torch cannot copy from it, and so says that it was asked to.
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        save_state(tmp_path / "state.pt", {"epoch": 1, "optimizer": [{"a": torch.empty(3, device="meta")}]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("num_values", [1, 100_000])
def test_a_full_disk_is_told_as_such(tmp_path: Path, num_values: int) -> None:
    (tmp_path / f".state.pt.{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_state(tmp_path / "state.pt", {"model": {"a": torch.zeros(num_values)}})
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_file_is_on_the_disk_before_it_takes_the_old_ones_place(tmp_path: Path, monkeypatch) -> None:
    calls: list[tuple[str, bool]] = []
    path = tmp_path / "state.pt"
    fsync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        calls.append(("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file", path.exists()))
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        calls.append(("replace", path.exists()))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    save_state(path, _state())
    assert calls == [("file", False), ("replace", False), ("folder", True)]


def test_damaged_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, _state())
    whole = path.read_bytes()
    values = whole.index(np.arange(2000, dtype=np.float32).tobytes())
    # A bit of a weight, of the pickled structure, of the directory at the file's end; cut short; empty; something else.
    flipped = [bytes([*whole[:at], whole[at] ^ 4, *whole[at + 1 :]]) for at in (values + 4000, 200, len(whole) - 100)]
    for content in (*flipped, whole[: len(whole) // 2], whole[:-1], b"", b"no state at all"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"training state .*state\.pt: .*: start the trial again"):
            load_state(path)
    path.write_bytes(whole)
    assert load_state(path)["epoch"] == 3


def test_state_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": Path("/")}, tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="holds more than tensors and numbers: start the trial again"):
        load_state(tmp_path / "state.pt")
    torch.save(torch.zeros(1), tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="got a Tensor in it, expected the state of a trial"):
        load_state(tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="No such file"):
        load_state(tmp_path / "none.pt")
