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
    own = {
        "train": config.to_dict(),
        "space": "cnn",
        "number": 3,
        "known_epochs": 1,
        "micro_batch": None,
        "parent": None,
        "branched_after": 0,
    }
    told = {**constants, **own, "value_to_beat": float("nan"), "shards": vars(shards), **more}
    return GalaxyTrial(pack_own(told))


def numbers(trial: GalaxyTrial, num: int) -> list[dict[str, Any]]:
    """What a worker tells of its next epochs, without what a clock decides."""
    clock = {"epoch_s", "images_per_s", "data_wait_share", "handover_s"}
    results = [trial.step() for _ in range(num)]
    return [{k: v for k, v in one.items() if k not in clock and not k.endswith("energy_j")} for one in results]


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


def test_a_trial_of_a_population_goes_on_from_another_or_trains_all_of_it_itself(
    shards: Shards, tmp_path: Path
) -> None:
    parent = small_config(epochs=3, precision="float32", seed=1)
    own = {"number": 7, "known_epochs": 2, "branched_after": 2}
    own["train"] = parent.changed(2, replace(parent, learning_rate=0.1)).to_dict()
    numbers(make_trial(tmp_path, shards), 2)
    child = numbers(make_trial(tmp_path, shards, **own, parent=3), 1)
    assert child[0]["epoch"] == 3
    # The parent has gone on meanwhile, so its state is not the one to begin from.
    numbers(make_trial(tmp_path, shards, known_epochs=2), 1)
    state_path(tmp_path, "cnn", 7).unlink()
    again = numbers(make_trial(tmp_path, shards, **own, parent=3), 3)
    assert [result["epoch"] for result in again] == [1, 2, 3]
    assert again[2] == child[0]
    # One that another trial of this number has left is passed over.
    state_path(tmp_path, "cnn", 3).unlink()
    numbers(make_trial(tmp_path, shards), 2)
    state_path(tmp_path, "cnn", 7).write_bytes(state_path(tmp_path, "cnn", 3).read_bytes())
    assert numbers(make_trial(tmp_path, shards, **own, parent=3), 1) == child
    # Its own state comes first.
    assert [path.name for path in sorted((tmp_path / "weights" / "cnn").iterdir()) if "trial-00007" in path.name] == [
        "trial-00007-epoch-0003.safetensors"
    ]
