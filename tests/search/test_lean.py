"""Tune carries and keeps of a result only what Tune itself reads."""

import json
import math
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Experiment, Trial
from ray.tune.search import Searcher, SearchGenerator

from search.lean import LeanGenerator, LeanRecords, LeanTrainable, pack_alike, pack_own, unpack


class Half(LeanTrainable):
    """A trial of which each epoch gives the same."""

    def step(self) -> dict[str, Any]:
        return {"val_nll": 0.5, "epoch": 1}


def test_a_result_comes_without_the_configuration_that_the_driver_has() -> None:
    told = Half({"train": {"width": 64}}).train()
    assert (told["val_nll"], told["epoch"], told["training_iteration"], told["done"]) == (0.5, 1, 1, False)
    assert {"pid", "node_ip", "trial_id", "time_total_s"} <= told.keys()
    assert not {"config", "date", "hostname", "timestamp"} & told.keys()


def test_of_a_result_tune_keeps_no_metric() -> None:
    trial = Trial("trainable", stub=True, trial_id="0")
    result = {**Half({}).train(), "trial_id": "0"}
    place = result["node_ip"], result["pid"]
    LeanRecords().on_trial_result(0, [trial], trial, result)
    trial.update_last_result(result)
    assert trial.last_result["training_iteration"] == 1
    assert (trial.temporary_state.location.hostname, trial.temporary_state.location.pid) == place
    kept = json.loads(trial.run_metadata.get_json_state())
    assert "training_iteration" in kept["metric_analysis"]
    assert "val_nll" not in kept["metric_analysis"].keys() | kept["last_result"].keys()
    LeanRecords().on_trial_complete(0, [trial], trial)
    kept = json.loads(trial.run_metadata.get_json_state())
    assert (kept["metric_analysis"], kept["metric_n_steps"]) == ({}, {})


def test_a_trial_is_told_what_was_packed_and_the_number_that_the_driver_changed() -> None:
    alike = {"shards": {"uri": None, "digest": "sha256:0"}, "threads": 2, "timeout_s": 0.1}
    own = {"train": {"width": 64, "learning_rate": 1e-3 / 3, "weights": None}, "number": 7, "micro_batch": None}
    carried = {**pack_alike(alike), **pack_own(own)}
    assert len(carried) == 3
    assert unpack(carried) == {**alike, **own}
    carried["micro_batch"] = 16
    assert unpack(carried) == {**alike, **own, "micro_batch": 16}
    assert math.isnan(unpack(pack_own({**own, "value_to_beat": math.nan}))["value_to_beat"])


class Listed(Searcher):
    """Suggests what it is given, then nothing for a while, then that it has no more."""

    def __init__(self) -> None:
        super().__init__(metric="val_nll", mode="min")
        self._left: list[Any] = [pack_own({"number": 0, "micro_batch": 8}), None, Searcher.FINISHED]

    def suggest(self, trial_id: str) -> Any:
        return self._left.pop(0)


def name_of(trial: Trial) -> str:
    return f"trial-{trial.trial_id}"


def test_trials_are_made_as_tunes_own_generator_makes_them(tmp_path: Path) -> None:
    made = []
    for kind in (SearchGenerator, LeanGenerator):
        experiment = Experiment(
            "tune",
            tune.with_resources(Half, {"CPU": 3, "GPU": 0.5}),
            config=pack_alike({"threads": 3}),
            num_samples=5,
            storage_path=str(tmp_path),
            max_failures=4,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        )
        generator = kind(Listed())
        generator.add_configurations([experiment])
        trial = generator.next_trial()
        assert generator.next_trial() is None
        assert not generator.is_finished()
        assert generator.next_trial() is None
        assert generator.is_finished()
        trial.create_placement_group_factory()
        assert trial.custom_trial_name == trial.custom_dirname == name_of(trial)
        made.append(trial)
    theirs, ours = made
    assert ours.trial_id != theirs.trial_id
    assert unpack(ours.config) == {"threads": 3, "number": 0, "micro_batch": 8}
    assert ours.get_trainable_cls() is ours.get_trainable_cls()
    assert ours.placement_group_factory.required_resources == {"CPU": 3, "GPU": 0.5}
    own = {"trial_id", "stub", "experiment_tag", "evaluated_params", "custom_trial_name", "custom_dirname"}
    own |= {"temporary_state", "run_metadata", "storage"}
    assert {key: value for key, value in vars(ours).items() if key not in own} == {
        key: value for key, value in vars(theirs).items() if key not in own
    }
    assert vars(ours.run_metadata.checkpoint_manager.checkpoint_config) == vars(
        theirs.run_metadata.checkpoint_manager.checkpoint_config
    )
    assert (ours.storage.storage_fs_path, ours.storage.experiment_dir_name) == (
        theirs.storage.storage_fs_path,
        theirs.storage.experiment_dir_name,
    )
