"""Leaves out what Tune carries with each result and keeps of it, where a search has no use for it.

Of each result Tune sends a trial's whole configuration back, and of each trial it keeps the last result and running
statistics of every number in it, and writes all of that down when the search ends. The study is the record. A
configuration it copies, takes apart and writes down several times before its trial starts, value for value: so it gets
one of few values. And what all trials have in common it makes anew for each.
"""

import functools
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.registry import get_trainable_cls
from ray.tune.result import DONE, NODE_IP, PID, TIME_TOTAL_S, TRAINING_ITERATION, TRIAL_ID
from ray.tune.search import Searcher
from ray.tune.search.search_generator import SearchGenerator

# What Tune itself reads of a trial's last result: where it runs, how far it is and whether it has ended.
_TUNES_OWN = frozenset((TRIAL_ID, NODE_IP, PID, TIME_TOTAL_S, TRAINING_ITERATION, DONE))

# What an experiment says of all its trials, in the words that a trial takes.
_OF_ALL = (
    "storage",
    "export_formats",
    "checkpoint_config",
    "log_to_file",
    "trial_name_creator",
    "trial_dirname_creator",
)

_ALIKE, _OWN, _CHANGING = "alike", "own", "micro_batch"


def pack_alike(values: Mapping[str, Any]) -> dict[str, Any]:
    """What all trials are told alike, as Tune is to carry it."""
    return {_ALIKE: json.dumps(values)}


def pack_own(values: Mapping[str, Any]) -> dict[str, Any]:
    """What one trial is told, likewise; `micro_batch`, which the driver may change, stands by itself."""
    own = {name: value for name, value in values.items() if name != _CHANGING}
    return {_OWN: json.dumps(own), _CHANGING: values[_CHANGING]}


def unpack(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial is told, of what Tune carried."""
    return {**json.loads(config.get(_ALIKE, "{}")), **json.loads(config[_OWN]), _CHANGING: config[_CHANGING]}


class LeanTrial(Trial):
    """A trial whose trainable is fetched from Ray's head and unpickled once a search, not twice a trial."""

    def get_trainable_cls(self) -> type[tune.Trainable]:
        """What trains."""
        return _trainable_of(self.trainable_name)


@functools.cache
def _trainable_of(name: str) -> type[tune.Trainable]:
    return get_trainable_cls(name)


class LeanGenerator(SearchGenerator):
    """Makes trials of what a searcher suggests and of what the experiment says of all.

    Tune's own copies the experiment for each trial and turns it into the words of a command line, which it parses.

    Args:
        searcher: suggests configurations without anything in them that is still to be drawn.
    """

    def __init__(self, searcher: Searcher) -> None:
        super().__init__(searcher)
        # An earlier search of this process had another trainable of the same name.
        _trainable_of.cache_clear()

    def create_trial_if_possible(self, experiment_spec: dict[str, Any]) -> Trial | None:
        """Make the next trial, if the searcher has one now."""
        trial_id = Trial.generate_id()
        suggested = self.searcher.suggest(trial_id)
        if suggested == Searcher.FINISHED:
            self._finished = True
        if not isinstance(suggested, dict):
            return None
        self._counter += 1
        return LeanTrial(
            experiment_spec["run"],
            config={**experiment_spec["config"], **suggested},
            trial_id=trial_id,
            experiment_tag=str(self._counter),
            placement_group_factory=experiment_spec["resources_per_trial"],
            max_failures=experiment_spec["max_failures"],
            # Validated when the experiment was made.
            stub=True,
            **{name: experiment_spec[name] for name in _OF_ALL},
        )


class LeanTrainable(tune.Trainable):
    """A trial whose results come without its configuration, which the driver has."""

    def get_auto_filled_metrics(
        self,
        now: datetime | None = None,
        time_this_iter: float | None = None,
        timestamp: int | None = None,
        debug_metrics_only: bool = False,
    ) -> dict[str, Any]:
        """What Tune adds to each result; see there."""
        added = super().get_auto_filled_metrics(now, time_this_iter, timestamp, debug_metrics_only)
        return {name: value for name, value in added.items() if name in _TUNES_OWN}


class LeanRecords(Callback):
    """Takes from each result what has been told to everybody. It comes last among Tune's callbacks."""

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Leave Tune what it reads itself; its statistics begin after this."""
        for name in result.keys() - _TUNES_OWN:
            del result[name]

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Let go of the statistics of what was left."""
        trial.run_metadata.metric_analysis, trial.run_metadata.metric_n_steps = {}, {}

    def __getstate__(self) -> dict[str, Any]:
        """There is nothing to keep."""
        return {}
