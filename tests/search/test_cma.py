"""CMA-ES told anew from the study is the CMA-ES that was there all along."""

from collections.abc import Callable
from typing import Any

import cmaes
import numpy as np
import optuna
import pytest
from optuna.samplers import CmaEsSampler

from search.cma import RetoldCmaEsSampler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
OPTIONS: dict[str, Any] = {"n_startup_trials": 4, "warn_independent_sampling": False, "consider_pruned_trials": True}


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def suggest(trial: optuna.Trial) -> list[float]:
    return [trial.suggest_float(name, -3.0, 5.0) for name in "xyz"]


def loss(point: list[float]) -> float:
    return sum((value - 1.5) ** 2 for value in point)


def search(
    make: Any,
    *,
    num: int,
    sign: float = 1.0,
    running: int = 1,
    suggest: Callable[[optuna.Trial], list[float]] = suggest,
    stops: Callable[[optuna.Trial], bool] = lambda trial: False,
) -> optuna.Study:
    """A search with a sampler of its own for each trial, of which so many run at the same time and end in any order."""
    study = optuna.create_study(direction="minimize" if sign > 0 else "maximize")
    ends, live = np.random.default_rng(0), []
    for number in range(num):
        study.sampler = make(number)
        trial = study.ask()
        live.append((trial, loss(suggest(trial))))
        if len(live) >= running:
            ended, value = live.pop(int(ends.integers(len(live))))
            if number % 5 == 4 or stops(ended):  # a trial that was stopped counts with its latest value
                ended.report(sign * value, step=1)
                study.tell(ended, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(ended, sign * value)
    return study


def test_nothing_is_pickled_into_the_study() -> None:
    study = search(lambda number: RetoldCmaEsSampler({}, seed=number, **OPTIONS), num=30)
    names = {name for trial in study.get_trials() for name in trial.system_attrs}
    assert names == {"cma:generation"}
    assert max(trial.system_attrs.get("cma:generation", 0) for trial in study.get_trials()) > 2


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("running", [1, 3])
def test_proposals_do_not_depend_on_what_the_session_remembers(sign: float, running: int) -> None:
    kept: dict[str, Any] = {}
    one = search(
        lambda number: RetoldCmaEsSampler(kept, seed=number, **OPTIONS), num=60, sign=sign, running=running
    ).get_trials()
    many = search(
        lambda number: RetoldCmaEsSampler({}, seed=number, **OPTIONS), num=60, sign=sign, running=running
    ).get_trials()
    assert [trial.params for trial in one] == [trial.params for trial in many]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_distribution_is_that_of_the_cmaes_librarys_own_loop(sign: float) -> None:
    kept: dict[str, Any] = {}
    study = search(lambda number: RetoldCmaEsSampler(kept, seed=number, **OPTIONS), num=64, sign=sign)
    found = kept["optimizer"]
    own = cmaes.CMA(mean=np.full(3, 0.5), sigma=1 / 6, bounds=np.array([[0.0, 1.0]] * 3), n_max_resampling=30)
    assert found.generation > 4
    for generation in range(found.generation):
        told = [one for one in study.get_trials() if one.system_attrs.get("cma:generation") == generation]
        solutions = []
        for one in told[: own.population_size]:
            value = one.value if one.value is not None else one.intermediate_values[1]
            solutions.append((np.array([(one.params[name] + 3.0) / 8.0 for name in "xyz"]), sign * value))
        own.tell(solutions)
    np.testing.assert_allclose(found.mean, own.mean, rtol=1e-9)
    np.testing.assert_allclose(found._sigma, own._sigma, rtol=1e-9)
    np.testing.assert_allclose(found._C, own._C, rtol=1e-9)


def test_proposals_are_those_of_optunas_sampler_with_its_pickle() -> None:
    """Given the same draws: Optuna's takes one draw more in the trial that makes the optimizer."""

    class Drawing(CmaEsSampler):
        def _restore_optimizer(self, completed_trials: Any) -> Any:
            optimizer = super()._restore_optimizer(completed_trials)
            if optimizer is not None:
                self._cma_rng.rng.randint(1, 2**31 - 2)
            return optimizer

    theirs = search(lambda number: Drawing(seed=number, **OPTIONS), num=40).get_trials()
    ours = search(lambda number: RetoldCmaEsSampler({}, seed=number, **OPTIONS), num=40).get_trials()
    for one, other in zip(ours, theirs, strict=True):
        assert one.params == pytest.approx(other.params, rel=1e-9)


def two_branches(trial: optuna.Trial) -> list[float]:
    point = [trial.suggest_float(name, -3.0, 5.0) for name in "xy"]
    return [*point, trial.suggest_float(trial.suggest_categorical("branch", ["z", "u"]), -3.0, 5.0)]


@pytest.mark.parametrize("running", [1, 3])
def test_a_branch_is_searched_until_another_is_complete_and_then_what_both_have(running: int) -> None:
    """The second branch's trials are all stopped at first, as where the first is better."""
    dims: list[int] = []

    def make(number: int) -> RetoldCmaEsSampler:
        if "optimizer" in kept:
            dims.append(kept["optimizer"].dim)
        return RetoldCmaEsSampler(kept, seed=number, **OPTIONS)

    kept: dict[str, Any] = {}
    options: dict[str, Any] = {
        "num": 120, "running": running, "suggest": two_branches,
        "stops": lambda trial: trial.number < 60 and trial.params["branch"] == "u",
    }  # fmt: skip
    one = search(make, **options).get_trials()
    assert dims == sorted(dims, reverse=True)
    assert set(dims) == {3, 2}
    assert dims.count(3) > 20
    many = search(lambda number: RetoldCmaEsSampler({}, seed=number, **OPTIONS), **options).get_trials()
    assert [trial.params for trial in one] == [trial.params for trial in many]
    # It goes on learning after the change.
    generations = [trial.system_attrs.get("cma:generation", -1) for trial in one]
    assert generations[-1] > generations[70] > generations[30] > 0


def test_trials_of_another_range_are_not_told() -> None:
    """A point of theirs would lie elsewhere in the range that the complete trials have."""

    def suggest(trial: optuna.Trial) -> list[float]:
        return [trial.suggest_float(name, -3.0, 5.0 if trial.number < 30 else 9.0) for name in "xyz"]

    study = search(
        lambda number: RetoldCmaEsSampler({}, seed=number, **OPTIONS), num=60, suggest=suggest,
        stops=lambda trial: trial.number >= 30,
    )  # fmt: skip
    generations = [trial.system_attrs.get("cma:generation", -1) for trial in study.get_trials()]
    assert generations[30] >= 3
    assert set(generations[30:]) == {generations[30]}
