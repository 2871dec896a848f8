"""What a sampler proposes follows from the seed, the trial's number and the study, and from nothing else."""

import logging
import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from two_spaces import CONDITIONAL, FOUR, epoch, make_ledger

from search import samplers
from search.errors import RunError
from search.options import SAMPLERS
from search.samplers import MAX_HISTORY, History, check_sampler, grid_values


def loss(params: dict[str, Any]) -> float:
    return abs(float(np.log10(params["lr"])) + 2.5) + (params["beta"] - 0.8) ** 2


def propose(folder: Path, sampler: str, *, num: int = 16, reopen: int = 10**9, seed: int = 1) -> list[dict[str, Any]]:
    """A search of one space, one epoch a trial; a new process could not know less than a ledger that was reopened."""
    folder.mkdir()
    options: dict[str, Any] = {"names": "a", "sampler": sampler, "num_trials": 10**6, "max_epochs": 1, "seed": seed}
    ledger, found = make_ledger(folder, **options), []
    for number in range(num):
        if number % reopen == reopen - 1:
            random.seed(number)
            np.random.seed(number)  # noqa: NPY002 (the generator that nothing may depend on)
            ledger = make_ledger(folder, **options)
        entry = ledger.start(str(number))
        assert entry is not None
        found.append(entry.params)
        ledger.report(str(number), epoch(1, loss(entry.params)))
    return found


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_the_proposals_are_the_same_in_one_session_and_in_many(tmp_path: Path, sampler: str) -> None:
    num = 12 if sampler == "gp" else 24
    whole = propose(tmp_path / "whole", sampler, num=num)
    assert propose(tmp_path / "once", sampler, num=num, reopen=num - 1) == whole
    if sampler != "gp":  # which is slow
        assert propose(tmp_path / "often", sampler, num=num, reopen=1) == whole
    assert propose(tmp_path / "other", sampler, num=4, seed=2)[1:] != whole[1:4]
    assert len({tuple(params.values()) for params in whole}) == num


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_space_of_two_branches_where_weak_trials_are_stopped(
    tmp_path: Path, sampler: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The second branch is worse at first, so that all of its trials are stopped, and then better."""

    def search(folder: Path, reopen: int) -> list[tuple[Any, ...]]:
        folder.mkdir()
        options: dict[str, Any] = {"names": "a", "text": CONDITIONAL, "sampler": sampler, "num_trials": 99}
        for number in range(35 if sampler == "gp" else 60):
            if number % reopen == 0:
                ledger = make_ledger(folder, max_epochs=3, **options)
            entry = ledger.start(str(number))
            assert entry is not None
            value = entry.params["drop"] + 2.0 * (number < 33) * (entry.params["optimizer"] == "sgd")
            while ledger.report(str(number), epoch(entry.epochs + 1, value - 0.01 * entry.epochs)):
                pass
        trials = ledger.accounts["a"].study.get_trials()
        return [(trial.params, trial.state, trial.system_attrs.get("cma:generation")) for trial in trials]

    logging.getLogger("optuna").addHandler(caplog.handler)
    try:
        whole = search(tmp_path / "whole", 10**9)
    finally:
        logging.getLogger("optuna").removeHandler(caplog.handler)
    assert not [one for one in caplog.messages if "sampled independently" in one]
    ends = {(params["optimizer"], state) for params, state, _ in whole[:33]}
    assert ends >= {("adamw", TrialState.COMPLETE), ("adamw", TrialState.PRUNED), ("sgd", TrialState.PRUNED)}
    later = {(params["optimizer"], state) for params, state, _ in whole[33:]}
    assert sampler == "gp" or ("sgd", TrialState.COMPLETE) in later  # which has two trials there: it is slow
    assert sampler != "cmaes" or whole[59][2] > whole[40][2]
    assert search(tmp_path / "cut", 7) == whole


def test_groups_are_formed_of_one_trial_of_each_kind_and_are_the_same_as_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(folder: Path) -> list[dict[str, Any]]:
        folder.mkdir()
        ledger = make_ledger(folder, names="a", text=CONDITIONAL, sampler="tpe", num_trials=99, max_epochs=1)
        found = []
        for number in range(40):
            entry = ledger.start(str(number))
            assert entry is not None
            found.append(entry.params)
            ledger.report(str(number), epoch(1, entry.params["drop"]))
        return found

    shown: list[int] = []
    infer = optuna.samplers.TPESampler.infer_relative_search_space

    def spy(self: Any, study: Any, trial: Any) -> Any:
        shown.append(len(study.get_trials(deepcopy=False)))
        return infer(self, study, trial)

    monkeypatch.setattr(optuna.samplers.TPESampler, "infer_relative_search_space", spy)
    by_kinds = search(tmp_path / "kinds")
    assert max(shown) == 2
    whole = samplers.BoundedSampler.infer_relative_search_space
    monkeypatch.setattr(samplers.GroupingSampler, "infer_relative_search_space", whole)
    assert search(tmp_path / "all") == by_kinds
    assert max(shown) > 30


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_sampler_that_learns_comes_nearer_than_chance(tmp_path: Path, sampler: str) -> None:
    learnt = sorted(map(loss, propose(tmp_path / "learnt", sampler, num=60)[12:]))
    drawn = sorted(map(loss, propose(tmp_path / "drawn", "random", num=60)[12:]))
    assert learnt[len(learnt) // 2] < drawn[len(drawn) // 2]


def test_a_quasi_random_sequence_fills_the_space_more_evenly_than_chance(tmp_path: Path) -> None:
    from scipy.stats import qmc

    def unevenness(sampler: str) -> float:
        found = propose(tmp_path / sampler, sampler, num=34)[2:]
        points = [((np.log10(one["lr"]) + 4) / 3, (one["beta"] - 0.5) / 0.45) for one in found]
        return float(qmc.discrepancy(np.clip(points, 0, 1)))

    assert unevenness("qmc") < unevenness("random")


@pytest.mark.parametrize("reopen", [10**9, 1])
def test_a_grid_visits_each_point_once(tmp_path: Path, reopen: int) -> None:
    options: dict[str, Any] = {"names": "a", "sampler": "grid", "text": FOUR, "num_trials": 4, "max_epochs": 1}
    ledger, found = make_ledger(tmp_path, **options), []
    for number in range(4):
        if reopen == 1:
            ledger = make_ledger(tmp_path, **options)
        entry = ledger.start(str(number))
        assert entry is not None
        found.append((entry.params["lr"], entry.params["batch"]))
        ledger.report(str(number), epoch(1, 0.5))
    assert sorted(found) == [(1e-3, 16), (1e-3, 32), (1e-2, 16), (1e-2, 32)]
    assert ledger.start("5") is None


def test_the_values_of_a_grid() -> None:
    space = {
        "choice": CategoricalDistribution(["x", None]),
        "log": FloatDistribution(1e-4, 1e-2, log=True),
        "real": FloatDistribution(0.0, 1.0),
        "stepped": FloatDistribution(0.0, 1.0, step=0.25),
        "whole": IntDistribution(1, 2),
        "wide": IntDistribution(0, 10, step=5),
        "fixed": IntDistribution(0, 9),
    }
    grid = grid_values(space, {"fixed": 7})
    assert grid.pop("log") == pytest.approx([1e-4, 1e-3, 1e-2])
    assert grid == {
        "choice": ["x", None],
        "fixed": [7],
        "real": [0.0, 0.5, 1.0],
        "stepped": [0.0, 0.5, 1.0],
        "whole": [1, 2],
        "wide": [0, 5, 10],
    }


def test_a_grid_that_is_too_large_is_refused_with_its_size() -> None:
    space = {f"p{index}": FloatDistribution(0.0, 1.0) for index in range(9)}
    # 3 ** 9 points; one parameter fixed leaves 6,561.
    with pytest.raises(RunError, match=r"--sampler grid: 19,683 points of 9 parameters, expected at most 10,000: keep"):
        check_sampler("grid", space, {})
    check_sampler("grid", space, {"p0": 0.5})


@pytest.mark.parametrize(("sampler", "package"), [("cmaes", "cmaes"), ("gp", "scipy"), ("qmc", "scipy")])
def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, sampler: str, package: str
) -> None:
    check_sampler(sampler, {}, {})
    monkeypatch.setattr(samplers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        RunError, match=rf"--sampler {sampler}: needs the package {package}: pip install 'galaxy-search\[samplers\]'"
    ):
        check_sampler(sampler, {}, {})
    check_sampler("tpe", {}, {})


def ended(number: int, value: float, *, state: TrialState = TrialState.COMPLETE, step: int = 9) -> FrozenTrial:
    moment = datetime(2026, 1, 1) + timedelta(seconds=number)
    return optuna.trial.FrozenTrial(
        number=number, state=state, value=value, datetime_start=moment, datetime_complete=moment, params={},
        distributions={}, user_attrs={}, system_attrs={}, intermediate_values={step: value}, trial_id=number,
    )  # fmt: skip


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_history_is_the_best_and_the_latest_fifty(direction: Any) -> None:
    sign = 1.0 if direction == "min" else -1.0
    history, values = History(direction), np.random.default_rng(0).permutation(1000)
    for number, value in enumerate(values):
        history.add(ended(number, sign * float(value)))
    numbers = [trial.number for trial in history.selected()]
    best = {number for number, value in enumerate(values) if value < 50}
    assert set(numbers) == best | set(range(950, 1000))
    assert numbers == sorted(numbers)
    assert len(numbers) <= MAX_HISTORY


def test_the_history_ranks_stopped_trials_by_how_far_they_came_and_leaves_failed_ones_out() -> None:
    history = History("min")
    for number in range(300):  # these are the latest of nothing: worse than all, and pushed out
        history.add(ended(number, 50.0 + number, state=TrialState.PRUNED, step=1))
    far = ended(1000, 99.0, state=TrialState.PRUNED, step=3)
    history.add(far)
    history.add(ended(1001, 0.0, state=TrialState.FAIL))
    for number in range(2000, 2075):
        history.add(ended(number, 10_000.0))
    selected = {trial.number for trial in history.selected()}
    assert 1001 not in selected
    # Fifty complete trials come before any that was stopped.
    assert not selected & {0, 1, 2, 1000}
    assert len(selected) == 50 + 25


def test_a_sampler_is_shown_no_more_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    sample = optuna.samplers.TPESampler.sample_relative

    def spy(self: Any, study: Any, trial: Any, space: Any) -> Any:
        seen.append(len(study._get_trials(deepcopy=False, use_cache=True)))
        return sample(self, study, trial, space)

    monkeypatch.setattr(samplers, "MAX_HISTORY", 20)
    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_relative", spy)
    propose(tmp_path / "run", "tpe", num=60)
    # The best ten, the latest ten and the one that is asked for.
    assert 15 < max(seen) <= 20
    assert len(seen) > 50
