"""Which state of an earlier worker a trial goes on from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shapes_survey import make_shapes, small_config

from galaxy_models.training.checkpoint import load_state, save_state
from search.files import state_path
from search.lean import pack_own
from search.shards import Shards
from search.trial import GalaxyTrial


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return Shards.at(make_shapes(tmp_path_factory.mktemp("state") / "shapes", sizes=(32, 16, 16)))


def make_trial(run_dir: Path, shards: Shards, **more: Any) -> GalaxyTrial:
    constants = {
        "run_dir": str(run_dir), "storage": None, "software": None, "threads": 1, "processes": 1, "device": "cpu",
        "gpu_share": 1.0, "weights_dir": None, "metric": "nll", "direction": "min", "timeout_s": None,
        "silence_s": None,
    }  # fmt: skip
    config = small_config(epochs=3, precision="float32", seed=1)
    own = {"train": config.to_dict(), "space": "cnn", "number": 3, "known_epochs": 1, "micro_batch": None}
    told = {**constants, **own, "value_to_beat": float("nan"), "shards": vars(shards), **more}
    return GalaxyTrial(pack_own(told))


def next_epoch(run_dir: Path, shards: Shards) -> int:
    """The epoch that a new worker tells of first."""
    result = make_trial(run_dir, shards).step()
    assert "fault" not in result, result
    return int(result["epoch"])


def test_a_state_of_another_survey_is_passed_over(shards: Shards, tmp_path: Path) -> None:
    assert next_epoch(tmp_path, shards) == 1
    assert next_epoch(tmp_path, shards) == 2
    other = replace(shards, digest="sha256:" + "0" * 64)
    assert next_epoch(tmp_path, other) == 1
    # That one's state has taken its place.
    assert next_epoch(tmp_path, other) == 2
    assert next_epoch(tmp_path, shards) == 1


def test_a_state_that_names_no_survey_is_gone_on_from(shards: Shards, tmp_path: Path) -> None:
    assert next_epoch(tmp_path, shards) == 1
    path = state_path(tmp_path, "cnn", 3)
    state = load_state(path)
    assert state.pop("survey_digest") == shards.digest
    save_state(path, state)
    assert next_epoch(tmp_path, shards) == 2
