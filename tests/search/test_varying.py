"""What of a space population based training varies, and how."""

import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from population_places import MIXED
from two_spaces import SPACE, write_space

from search.errors import RunError
from search.population import _other, vary
from search.preflight import check_changeable
from search.space import probe_space

ONE_BRANCH = """
from galaxy_models.config import TrainConfig


def space(trial):
    batch_size = trial.suggest_int("batch", 8, 64)
    if trial.suggest_categorical("branch", ["plain"] * 1 + ["tuned"]) == "plain":
        return TrainConfig(backbone="vgg16", batch_size=batch_size)
    rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    return TrainConfig(backbone="vgg16", batch_size=batch_size, learning_rate=rate)
"""


def test_only_what_can_change_is_varied_and_only_within_its_range(tmp_path: Path) -> None:
    space = write_space(tmp_path, "a", MIXED)
    distributions = probe_space(space, seed=0, fixed={}).distributions
    params = {"batch": 16, "px": 32, "lr": 0.09, "smoothing": 0.05, "balance": "none", "noise": 0.05}
    seen: dict[str, set[Any]] = {name: set() for name in params}
    for seed in range(200):
        found = vary(params, distributions, space.config_of, random.Random(seed))  # noqa: S311
        assert found is not None
        assert found[1] == space.config_of(found[0])
        for name, value in found[0].items():
            assert distributions[name]._contains(distributions[name].to_internal_repr(value)), (name, value)
            seen[name].add(value)
    assert (seen["batch"], seen["px"]) == ({16}, {32})
    assert seen["balance"] == {"none", "loss"}
    assert seen["smoothing"] == {0.0, 0.05, 0.1}
    assert {0.04, 0.06} <= {round(value, 9) for value in seen["noise"]}
    assert {0.1, 0.072} <= {round(value, 9) for value in seen["lr"]}
    assert len(seen["lr"]) > 20


def test_a_fixed_parameter_stays(tmp_path: Path) -> None:
    space = write_space(tmp_path, "a", MIXED)
    distributions = dict(probe_space(space, seed=0, fixed={}).distributions)
    params = {"batch": 16, "px": 32, "lr": 0.09, "smoothing": 0.05, "balance": "none", "noise": 0.05}
    del distributions["lr"]
    for seed in range(20):
        found = vary(params, distributions, space.config_of, random.Random(seed))  # noqa: S311
        assert found is not None
        assert found[0]["lr"] == 0.09


def test_what_others_go_on_with_is_not_given_again(tmp_path: Path) -> None:
    space = write_space(tmp_path, "a", MIXED)
    distributions = probe_space(space, seed=0, fixed={}).distributions
    free = {name: distributions[name] for name in ("smoothing", "balance")}
    params = {"batch": 16, "px": 32, "lr": 0.09, "smoothing": 0.05, "balance": "none", "noise": 0.05}
    rng, taken = random.Random(0), []  # noqa: S311
    while (found := vary(params, free, space.config_of, rng, taken=taken)) is not None:
        taken.append(found[0])
    # Three values of the one with two of the other, but for the trial's own.
    assert len(taken) == 5
    assert len({(one["smoothing"], one["balance"]) for one in (params, *taken)}) == 6


@pytest.mark.parametrize(
    ("text", "fixed"),
    [(SPACE.replace("learning_rate=trial.suggest_float", "learning_rate=1e-3, drop_rate=trial.suggest_float"), {}),
     (SPACE, {"lr": 1e-3})],
)  # fmt: skip
def test_a_space_without_anything_to_change_is_refused(tmp_path: Path, text: str, fixed: dict[str, Any]) -> None:
    space = write_space(tmp_path, "a", text)
    with pytest.raises(RunError, match=r"--scheduler pbt: .*a.py has no parameter that can change while a network is"):
        check_changeable(space, fixed, seed=0)


def test_a_space_with_something_to_change_is_taken(tmp_path: Path) -> None:
    space = write_space(tmp_path, "a", SPACE)
    check_changeable(space, {}, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_a_space_with_something_to_change_in_one_branch_is_taken_whatever_the_seed(tmp_path: Path, seed: int) -> None:
    check_changeable(write_space(tmp_path, "a", ONE_BRANCH), {}, seed=seed)


def test_a_number_that_was_given_as_a_whole_one_stays_within_its_range() -> None:
    distribution = optuna.distributions.FloatDistribution(0.5, 5.0)
    found = {_other(1, distribution, random.Random(seed)) for seed in range(50)}  # noqa: S311
    assert {0.8, 1.2} < found
    assert all(isinstance(value, float) and 0.5 <= value <= 5.0 for value in found)
