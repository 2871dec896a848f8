"""The virtual clock, against hand tables; and the order of calls, against Tune itself."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from few_curves import bowl, curves
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.simulation.curves import Curves
from search.simulation.engine import OBJECTIVE, Bounds, Stack, Trace, VirtualTune
from search.simulation.stacks import OURS, STOCK, Setting, make_stack
from search.simulation.table import TableSpace

FLAT = {"a": [3.0, 3.0, 3.0], "b": [2.0, 2.0, 2.0], "c": [1.0, 1.0, 1.0]}


class InTurn(Searcher):
    """Suggests row after row, and remembers what it was told."""

    def __init__(self, num: int) -> None:
        super().__init__(metric=OBJECTIVE, mode="min")
        self.num = num
        self.given = 0
        self.told: list[tuple[str, str]] = []

    def suggest(self, trial_id: str) -> Any:
        if self.given == self.num:
            return Searcher.FINISHED
        self.given += 1
        return {"row": self.given - 1}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.told.append((trial_id[-1], "result"))

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self.told.append((trial_id[-1], "complete"))


class Decides(FIFOScheduler):
    """Answers with what a test wrote down for a value and epoch, and otherwise lets go on."""

    def __init__(self, decisions: dict[tuple[float, int], str]) -> None:
        super().__init__()
        self.decisions = decisions

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self.decisions.get((result[OBJECTIVE], result["training_iteration"]), TrialScheduler.CONTINUE)


def run(
    recorded: Curves, *, workers: int = 1, decisions: dict[Any, str] | None = None, **bounds: float
) -> tuple[Trace, InTurn]:
    searcher = InTurn(len(recorded.ids))
    stack = Stack(searcher, Decides(decisions or {}), row_of=lambda config: config["row"], max_pending=1)
    terms = Bounds(num_trials=99, max_epochs=3, **bounds)
    return VirtualTune(stack, recorded, num_workers=workers, bounds=terms).run(), searcher


def timeline(trace: Trace) -> list[tuple[float, float, int]]:
    return list(zip(trace.time_s.tolist(), trace.value.tolist(), trace.epoch.tolist(), strict=True))


def test_one_worker_trains_one_trial_after_the_other() -> None:
    trace, searcher = run(curves(FLAT, seconds=10.0))
    expected = [(3.0, 1), (3.0, 2), (3.0, 3), (2.0, 1), (2.0, 2), (2.0, 3), (1.0, 1), (1.0, 2), (1.0, 3)]
    assert timeline(trace) == [(10.0 * number, *one) for number, one in enumerate(expected, start=1)]
    assert [trial.ended for trial in trace.trials] == ["done"] * 3
    assert searcher.told[:4] == [("0", "result")] * 3 + [("0", "complete")]


def test_two_workers_share_the_trials() -> None:
    trace, _ = run(curves(FLAT), workers=2)
    # c begins when a and b have ended together.
    assert timeline(trace) == [
        (1, 3, 1), (1, 2, 1), (2, 3, 2), (2, 2, 2), (3, 3, 3), (3, 2, 3), (4, 1, 1), (5, 1, 2), (6, 1, 3)
    ]  # fmt: skip


def test_a_trial_that_is_stopped_makes_room_at_once() -> None:
    trace, searcher = run(curves(FLAT), decisions={(3.0, 1): TrialScheduler.STOP, (2.0, 2): TrialScheduler.STOP})
    assert timeline(trace) == [(1, 3, 1), (2, 2, 1), (3, 2, 2), (4, 1, 1), (5, 1, 2), (6, 1, 3)]
    assert [trial.ended for trial in trace.trials] == ["stopped", "stopped", "done"]
    # As in Tune: a searcher is not told of the result that ended a trial by itself, but with its end.
    assert searcher.told[:2] == [("0", "complete"), ("1", "result")]


def test_a_curve_that_ends_early_is_cut_and_not_stopped() -> None:
    trace, _ = run(curves({"a": [3.0], "b": [2.0, 2.0, 2.0]}))
    assert [trial.ended for trial in trace.trials] == ["cut", "done"]
    assert timeline(trace)[-1] == (4, 2, 3)


class Alternates(Decides):
    """Pauses each trial after each epoch and takes the one that waits longest."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        waiting = [trial for trial in tune_controller.get_trials() if trial.status in ("PENDING", "PAUSED")]
        return min(waiting, key=lambda trial: (trial.epochs, trial.trial_id), default=None)


def test_a_paused_trial_leaves_its_worker_and_goes_on_from_where_it_was() -> None:
    two = curves({"a": [3.0] * 3, "b": [2.0] * 3})
    pauses = {(value, epoch): TrialScheduler.PAUSE for value in (3.0, 2.0) for epoch in (1, 2)}
    stack = Stack(InTurn(2), Alternates(pauses), row_of=lambda config: config["row"], max_pending=2)
    trace = VirtualTune(stack, two, num_workers=1, bounds=Bounds(num_trials=2, max_epochs=3)).run()
    assert timeline(trace) == [(1, 3, 1), (2, 2, 1), (3, 3, 2), (4, 2, 2), (5, 3, 3), (6, 2, 3)]


@pytest.mark.parametrize(
    ("bounds", "num"), [({"time_s": 4.5}, 4), ({"total_epochs": 5}, 5), ({"time_s": math.inf}, 9), ({"time_s": 0.5}, 0)]
)
def test_a_search_ends_with_its_time_or_its_epochs(bounds: dict[str, float], num: int) -> None:
    trace, _ = run(curves(FLAT), **bounds)
    assert len(trace.value) == num


REAL = """
import json, logging, os, sys
import ray
from ray import tune
from few_curves import bowl
from search.lean import unpack
from search.simulation.engine import METRIC, OBJECTIVE, Bounds
from search.simulation.stacks import OURS, STOCK, Setting, make_stack
from search.simulation.table import TableSpace

curves, bounds = bowl(), Bounds(num_trials=12, max_epochs=9)


def row_of(config):
    return config["row"] if "row" in config else unpack(config)["train"]["row"]


class Watch(tune.Callback):
    def __init__(self):
        self.seen = {}

    def on_trial_start(self, iteration, trials, trial, **info):
        self.seen[trial.trial_id] = [row_of(trial.config), 0]

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.seen[trial.trial_id][1] = result["epoch"]


class Replay(tune.Trainable):
    def setup(self, config):
        self.row = row_of(config)

    def reset_config(self, config):
        self.row = row_of(config)
        return True

    def step(self):
        epoch = self.iteration + 1
        value = float(curves.values[self.row][epoch - 1])
        return {"epoch": epoch, "epoch_s": 1.0, OBJECTIVE: value, METRIC: value, "diverged": False}


def run(name):
    setting, watch = Setting(name, "tpe", "asha", 1), Watch()
    stack = make_stack(setting, curves, TableSpace.of(curves), bounds=bounds, seed=5)
    stack.searcher.save = lambda path: None  # Tune would pickle what it was made of
    tune.Tuner(
        tune.with_resources(Replay, {"CPU": 1}),
        tune_config=tune.TuneConfig(
            search_alg=stack.searcher,
            scheduler=stack.scheduler,
            num_samples=-1 if name == OURS else 12,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=sys.argv[1],
            verbose=0,
            callbacks=[*stack.callbacks, watch],
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    ).fit()
    return list(watch.seen.values())


os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "1"
ray.init(num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
print(json.dumps({name: run(name) for name in (OURS, STOCK)}))
"""


@pytest.fixture(scope="module")
def under_tune(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[int]]]:
    """The row and the epochs of each trial of a search that Tune itself ran, by stack."""
    done = subprocess.run(
        [sys.executable, "-c", REAL, str(tmp_path_factory.mktemp("tune"))],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("stack", [OURS, STOCK])
def test_a_search_under_the_virtual_clock_goes_as_tune_runs_it(stack: str, under_tune: dict[str, Any]) -> None:
    recorded, bounds = bowl(), Bounds(num_trials=12, max_epochs=9)
    simulated = make_stack(Setting(stack, "tpe", "asha", 1), recorded, TableSpace.of(recorded), bounds=bounds, seed=5)
    trace = VirtualTune(simulated, recorded, num_workers=1, bounds=bounds).run()
    found = [[trial.row, trial.epochs] for trial in trace.trials]
    assert under_tune[stack] == found
    assert {1, 9} <= {epochs for _, epochs in found}
