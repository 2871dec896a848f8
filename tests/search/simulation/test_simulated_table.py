"""A table of configurations as a space: where parameters are drawn from, and what a draw stands for."""

import optuna
import pandas as pd
import pytest

from search.simulation.curves import make_curves
from search.simulation.table import TableSpace, make_axis


def space_of(**columns: list[object]) -> TableSpace:
    frame = pd.DataFrame(columns)
    frame = frame.assign(config=range(len(frame)), epoch=1, value=1.0, seconds=1.0)
    curves = make_curves(frame, where="here", objective="value", direction="min", params=list(columns))
    return TableSpace.of(curves)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 0.1], optuna.distributions.FloatDistribution(0.1, 0.5)),
        ([1e-4, 1e-1], optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)),
        ([0.0, 1e3], optuna.distributions.FloatDistribution(0.0, 1e3)),
        ([3, 7], optuna.distributions.IntDistribution(3, 7)),
        ([1, 1000], optuna.distributions.IntDistribution(1, 1000, log=True)),
        ([2.0, None, 8.0], optuna.distributions.IntDistribution(2, 8)),
        ([True, False], optuna.distributions.CategoricalDistribution((False, True))),
        (["sgd", "adam", "sgd"], optuna.distributions.CategoricalDistribution(("adam", "sgd"))),
    ],
)
def test_a_columns_values_say_where_it_is_drawn_from(values: list[object], expected: object) -> None:
    assert make_axis(pd.Series(values, name="x")).distribution == expected


def test_a_draw_stands_for_the_nearest_configuration_on_the_axes_own_scales() -> None:
    space = space_of(rate=[1e-4, 1e-2, 1e0], width=[10, 20, 20])
    # On a logarithmic axis 2e-3 lies nearer to 1e-2 than to 1e-4; on a linear one it would be the other way round.
    assert space.nearest({"rate": 2e-3, "width": 20}) == 1
    assert space.nearest({"rate": 2e-4, "width": 10}) == 0


def test_another_draw_never_stands_for_the_same_configuration_unless_it_meets_it() -> None:
    space = space_of(x=[0.0, 0.5, 1.0])
    assert [space.nearest({"x": x}) for x in (0.45, 0.45, 0.4, 0.5)] == [1, 1, 0, 1]
    # All taken: the nearest again.
    assert [space.nearest({"x": x}) for x in (0.9, 0.41)] == [2, 1]
    assert space.fresh().nearest({"x": 0.4}) == 1


def test_two_draws_are_two_configurations_though_they_stand_for_the_same_row() -> None:
    space = space_of(x=[0.0, 1.0])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for x in (0.1, 0.9, 0.2, 0.2):
        study.enqueue_trial({"x": x})
    first, _, other, again = (space.config(study.ask()) for _ in range(4))
    assert first.row == other.row == 0
    assert first.to_dict() != other.to_dict() == again.to_dict()


def test_a_parameter_of_some_configurations_is_asked_for_after_the_choice_that_decides_it() -> None:
    space = space_of(solver=["sgd", "sgd", "adam"], momentum=[0.5, 0.9, None])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for solver, names in (("sgd", {"solver", "momentum"}), ("adam", {"solver"})):
        study.enqueue_trial({"solver": solver})
        trial = study.ask()
        assert set(space.suggest(trial)) == names
        assert (space.nearest(trial.params) == 2) == (solver == "adam")


def test_without_such_a_choice_there_is_one_of_its_own() -> None:
    space = space_of(a=[1.0, 2.0, None], b=[None, None, 3.0])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = {tuple(space.suggest(study.ask())) for _ in range(20)}
    assert asked == {("a",), ("b",)}
    assert set(space.distributions) == {"a", "b", "branch"}


def test_the_choice_of_its_own_leaves_a_column_of_its_name_alone() -> None:
    space = space_of(branch=[0.25, 0.75, None], b=[None, None, 3.0])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(20)]
    assert {tuple(space.suggest(trial)) for trial in trials} == {("branch",), ("b",)}
    assert {0 <= trial.params.get("branch", 0.5) <= 0.75 for trial in trials} == {True}
    assert {space.nearest(trial.params) == 2 for trial in trials if "b" in trial.params} == {True}
