"""A simulated search decides with the objects of a real one."""

import errno
import itertools
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from few_curves import bowl, curves
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from galaxy_models.errors import GalaxyError, MachineError
from search.ledger import Ledger
from search.recorder import Recorder
from search.simulation.engine import Bounds, Trace
from search.simulation.stacks import OURS, STOCK, Record, Setting
from search.simulation.sweep import measure, simulate, sweep
from search.simulation.table import TableSpace
from search.study import load_studies

BOUNDS = Bounds(num_trials=24, max_epochs=9)


def search(setting: Setting, recorded: Any = None, seed: int = 0, **terms: Any) -> Trace:
    recorded = recorded or bowl()
    return simulate(setting, recorded, TableSpace.of(recorded), bounds=BOUNDS, seed=seed, **terms)


def test_ours_stops_by_the_third_of_all_that_reached_a_rung() -> None:
    trace = search(Setting(OURS, "random", "asha", 1))
    values = [bowl().values[trial.row][0] for trial in trace.trials[:24]]
    for number, trial in enumerate(trace.trials[:24]):
        rank = sum(value <= values[number] for value in values[:number])
        assert (trial.epochs > 1) == (rank < ceil(Fraction(number + 1, 3))), number
    assert {trial.epochs for trial in trace.trials} <= {1, 3, 9}


def test_ours_runs_the_best_stopped_trial_again_to_the_full_length() -> None:
    # Every trial is at its best after its first epoch: the best of all is one that was stopped there.
    rising = curves({str(x): [x / 40] + [2.0] * 8 for x in range(40)})
    trace = search(Setting(OURS, "random", "asha", 1), rising)
    best = min(trace.trials[:24], key=lambda trial: rising.values[trial.row][0])
    assert best.epochs == 3
    assert [(trial.row, trial.epochs) for trial in trace.trials[24:]] == [(best.row, 9)]


def test_without_stopping_every_trial_runs_to_its_end() -> None:
    for stack in (OURS, STOCK):
        trace = search(Setting(stack, "random", "none", 3))
        assert [trial.epochs for trial in trace.trials] == [9] * 24


def test_the_study_is_told_as_in_a_search() -> None:
    record = Record(InMemoryStorage())
    trace = search(Setting(OURS, "tpe", "asha", 4), record=record)
    study = optuna.load_study(study_name="table", storage=record.storage)
    states = {9: TrialState.COMPLETE, 1: TrialState.PRUNED, 3: TrialState.PRUNED}
    assert [trial.state for trial in study.trials] == [states[trial.epochs] for trial in trace.trials]


def test_a_journal_on_disk_holds_the_same_search(tmp_path: Path) -> None:
    with Record.on_disk(tmp_path / "study.journal") as record:
        trace = search(Setting(OURS, "tpe", "asha", 4), record=record)
    kept = load_studies(tmp_path)["table"].get_trials()
    assert [trial.user_attrs["config"]["row"] for trial in kept] == [trial.row for trial in trace.trials]
    assert [len(trial.intermediate_values) for trial in kept] == [trial.epochs for trial in trace.trials]
    assert [trial.row for trial in search(Setting(OURS, "tpe", "asha", 4)).trials] == [
        trial.row for trial in trace.trials
    ]


def planted(error: Exception, after: int) -> Any:
    """A method that works so many times, and then raises."""

    def wrap(method: Any) -> Any:
        calls = itertools.count()

        def wrapped(*words: Any) -> Any:
            if next(calls) == after:
                raise error
            return method(*words)

        return wrapped

    return wrap


@pytest.mark.parametrize(
    ("method", "error", "found"),
    [
        ("start", ValueError("the sampler's"), "^the sampler's$"),
        ("report", OSError(errno.EIO, "Input/output error", "study.journal"), "^study.journal: .*: check the disk"),
        ("report", GalaxyError("the ledger's"), "^the ledger's$"),
    ],
)
def test_a_fault_ends_the_simulation_and_is_no_short_search(
    method: str, error: Exception, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, method, planted(error, 10)(getattr(Ledger, method)))
    with pytest.raises(type(error) if method == "start" else GalaxyError, match=found):
        search(Setting(OURS, "random", "asha", 1))


def test_a_fault_of_the_recorder_is_one_of_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "weights")
    monkeypatch.setattr(Recorder, "_sweep", planted(full, 3)(Recorder._sweep))
    with pytest.raises(MachineError, match="weights: No space left on device: free some room"):
        search(Setting(OURS, "random", "asha", 1))


def test_a_bug_says_in_which_simulated_search_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "start", planted(ValueError("a bug"), 30)(Ledger.start))
    settings = [Setting(OURS, "random", "none", 3)]
    with pytest.raises(ValueError, match="a bug") as caught:
        list(sweep(bowl(), settings, bounds=BOUNDS, num_seeds=2, seed=0, target=1.0))
    # 24 trials a search, and one call more that says that there is none left.
    assert caught.value.__notes__ == ["in a simulated search: ours random none, 3 workers, seed 1"]


@pytest.mark.parametrize("stack", [OURS, STOCK])
def test_a_seed_gives_one_search_and_another_seed_another(stack: str) -> None:
    setting = Setting(stack, "tpe", "asha", 3)
    once, again, other = search(setting, seed=1), search(setting, seed=1), search(setting, seed=2)
    assert [trial.row for trial in once.trials] == [trial.row for trial in again.trials]
    assert [trial.row for trial in once.trials] != [trial.row for trial in other.trials]


@pytest.mark.parametrize("stack", [OURS, STOCK])
def test_tpe_finds_the_middle_of_a_bowl_sooner_than_chance(stack: str) -> None:
    recorded = bowl(num=200)
    least = {}
    for sampler in ("tpe", "random"):
        setting = Setting(stack, sampler, "none", 1)
        found = sweep(recorded, [setting], bounds=Bounds(num_trials=30, max_epochs=1), num_seeds=8, seed=0, target=1.0)
        least[sampler] = np.mean([outcome.best[-1] for outcome in found])
    # Of 30 random draws from a line the nearest lies 1/62 of it from the middle on average.
    assert least["tpe"] - 1 < 0.5 / 62 < least["random"] - 1 < 2 / 62


def test_a_search_is_measured_by_when_it_reached_the_target() -> None:
    two = curves({"a": [3.0, 1.0], "b": [2.0, 0.5]}, seconds=10.0)
    bounds = Bounds(num_trials=2, max_epochs=2)
    trace = simulate(Setting(OURS, "random", "none", 2), two, TableSpace.of(two), bounds=bounds, seed=0)
    found = measure(Setting(OURS, "random", "none", 2), 0, two, trace, target=0.5, memory_mb=0.0)
    assert (found.num_trials, found.num_epochs, found.elapsed_s, found.target_s) == (2, 4, 20.0, 20.0)
    missed = measure(Setting(OURS, "random", "none", 2), 0, two, trace, target=0.4, memory_mb=0.0)
    assert (missed.target_s, missed.target_epochs) == (None, None)


def test_both_stacks_begin_with_the_same_configurations() -> None:
    recorded = bowl()
    space = TableSpace.of(recorded)
    first = space.draw(5, seed=3)
    assert len({params["x"] for params in first}) == 5
    rows = [space.nearest(params) for params in first]
    for stack in (OURS, STOCK):
        trace = search(Setting(stack, "tpe", "asha", 1), record=Record(first=first))
        assert [trial.row for trial in trace.trials[:5]] == rows
        assert len({trial.row for trial in trace.trials}) > 5
