"""Tune carries and keeps of a result only what Tune itself reads."""

import json
import math
from typing import Any

from ray.tune.experiment import Trial

from search.lean import LeanRecords, LeanTrainable, pack_alike, pack_own, unpack


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
