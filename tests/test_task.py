"""What a survey asks, and which way each metric is better."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_models.errors import ConfigError
from galaxy_models.task import METRICS, Task, objective_direction

SPIRALS = ("elliptical", "spiral_cw", "edge_on", "spiral_acw")


def test_a_mirror_exchanges_the_paired_outputs() -> None:
    task = Task("classes", SPIRALS, (("spiral_cw", "spiral_acw"),))
    assert task.num_outputs == 4
    assert task.mirror_order == (0, 3, 2, 1)
    assert Task("classes", SPIRALS).mirror_order == (0, 1, 2, 3)


@given(st.data(), st.integers(2, 40))
def test_two_mirrors_restore_every_label(data: st.DataObject, num_names: int) -> None:
    names = tuple(f"class {i}" for i in range(num_names))
    shuffled = data.draw(st.permutations(names))
    num_pairs = data.draw(st.integers(0, num_names // 2))
    pairs = tuple((shuffled[2 * i], shuffled[2 * i + 1]) for i in range(num_pairs))
    order = Task("classes", names, pairs).mirror_order
    assert [order[order[i]] for i in range(num_names)] == list(range(num_names))
    assert sum(order[i] != i for i in range(num_names)) == 2 * num_pairs


@pytest.mark.parametrize(
    ("kind", "names", "pairs", "message"),
    [
        ("regression", ("a", "b"), (), "task: got kind 'regression', expected one of ['classes', 'votes']"),
        ("classes", ("a",), (), "task: got names ['a'], expected at least two, each once"),
        ("classes", ("a", "b", "a"), (), "task: got names ['a', 'b', 'a'], expected at least two, each once"),
        ("classes", ("a", "b"), (("a", "c"),), "mirror pairs: got 'c', expected class names out of ['a', 'b']"),
        ("classes", ("a", "b", "c"), (("a", "b"), ("b", "c")), "expected each class at most once"),
        ("classes", ("a", "b"), (("a", "a"),), "expected each class at most once"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(
    kind: str, names: tuple[str, ...], pairs: tuple[tuple[str, str], ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Task(kind, names, pairs)


def test_objectives() -> None:
    assert objective_direction("classes", None) == ("nll", "min")
    assert objective_direction("votes", None) == ("rmse", "min")
    assert objective_direction("classes", "auroc") == ("auroc", "max")
    assert objective_direction("classes", "ece") == ("ece", "min")


@pytest.mark.parametrize(("kind", "objective"), [("classes", "rmse"), ("votes", "accuracy"), ("classes", "loss")])
def test_objectives_of_another_task_are_refused(kind: str, objective: str) -> None:
    with pytest.raises(ConfigError, match=f"^--objective: got '{objective}', expected one of .* a survey of {kind}$"):
        objective_direction(kind, objective)


def test_errors_are_small_and_scores_are_large_when_good() -> None:
    smaller = {name for metrics in METRICS.values() for name, direction in metrics.items() if direction == "min"}
    assert smaller == {"nll", "ece", "rmse"}
    assert "loss" not in METRICS["classes"], "the training loss depends on hyperparameters: no objective"


def test_a_mirror_pair_is_two_classes() -> None:
    with pytest.raises(ConfigError, match="expected two classes in each"):
        Task("classes", ("a", "b", "c"), (("a", "b", "c"),))
