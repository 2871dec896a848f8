"""Metrics against scikit-learn and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from galaxy_models.task import METRICS
from galaxy_models.training.metrics import NUM_ECE_BINS, class_metrics, measure, vote_rmse


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    return torch.softmax(logits, dim=1)


def _measure(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    return measure("classes", logits, targets, outputs=_softmax)


def _draw(seed: int, num_rows: int, num_classes: int, present: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    targets = generator.choice(present, num_rows)
    targets[: len(present)] = present
    logits = generator.normal(0, 1, (num_rows, num_classes)) + 1.5 * np.eye(num_classes)[targets]
    return torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(targets)


def _expected(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """The same by scikit-learn, and by hand where it has none."""
    truth = targets.numpy()
    probabilities = _softmax(logits.double()).numpy()
    answers = probabilities.argmax(axis=1)
    present = np.unique(truth)
    average = {"average": "macro", "zero_division": 0}
    return {
        "nll": sk.log_loss(truth, probabilities, labels=np.arange(logits.shape[1])),
        "accuracy": sk.accuracy_score(truth, answers),
        "balanced_accuracy": sk.recall_score(truth, answers, labels=present, average="macro"),
        "precision": sk.precision_score(truth, answers, **average),
        "recall": sk.recall_score(truth, answers, **average),
        "f1": sk.f1_score(truth, answers, **average),
        "auroc": float(np.mean([sk.roc_auc_score(truth == c, probabilities[:, c]) for c in present])),
        "ece": _calibration_error(probabilities.max(axis=1), answers == truth),
    }


def _calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    total = 0.0
    for number in range(NUM_ECE_BINS):
        inside = (confidence > number / NUM_ECE_BINS) & (confidence <= (number + 1) / NUM_ECE_BINS)
        if inside.any():
            total += abs(correct[inside].mean() - confidence[inside].mean()) * inside.mean()
    return total


@pytest.mark.parametrize(
    ("num_classes", "present"),
    [(2, [0, 1]), (5, [0, 1, 2, 3, 4]), (5, [0, 2, 3]), (6, [1, 5])],
    ids=["two", "five", "two absent", "four absent"],
)
def test_metrics_agree_with_scikit_learn(num_classes: int, present: list[int]) -> None:
    logits, targets = _draw(3, 400, num_classes, present)
    found = _measure(logits, targets)
    assert list(found) == list(METRICS["classes"])
    assert found == pytest.approx(_expected(logits, targets), abs=2e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num_rows=st.integers(3, 60), num_classes=st.integers(2, 6), data=st.data())
def test_metrics_agree_whatever_classes_are_absent(seed: int, num_rows: int, num_classes: int, data: st.DataObject):
    present = data.draw(st.lists(st.integers(0, num_classes - 1), min_size=2, max_size=3, unique=True))
    logits, targets = _draw(seed, num_rows, num_classes, present)
    assert _measure(logits, targets) == pytest.approx(_expected(logits, targets), abs=1e-5)


def test_all_classes_present_makes_recall_balanced_accuracy() -> None:
    logits, targets = _draw(5, 300, 4, [0, 1, 2, 3])
    found = _measure(logits, targets)
    assert found["recall"] == pytest.approx(sk.balanced_accuracy_score(targets.numpy(), logits.argmax(1).numpy()))
    assert found["balanced_accuracy"] == pytest.approx(found["recall"])


def test_one_class_alone_has_no_auroc_and_all_else() -> None:
    logits, targets = _draw(5, 20, 3, [1])
    found = _measure(logits, targets)
    assert math.isnan(found.pop("auroc"))
    assert all(math.isfinite(value) for value in found.values())


def test_certain_and_right_answers_are_perfect() -> None:
    targets = torch.arange(4).repeat(5)
    logits = 200.0 * torch.nn.functional.one_hot(targets, 4).float()
    best = {name: 0.0 if direction == "min" else 1.0 for name, direction in METRICS["classes"].items()}
    assert _measure(logits, targets) == pytest.approx(best, abs=1e-6)


def test_certain_and_wrong_answer_has_a_finite_likelihood() -> None:
    found = _measure(torch.tensor([[0.0, 500.0], [0.0, 500.0]]), torch.tensor([0, 1]))
    assert found["nll"] == pytest.approx(250.0)


def test_infinite_answer_makes_every_metric_nan() -> None:
    found = _measure(torch.tensor([[0.0, math.inf], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert list(found) == list(METRICS["classes"])
    assert all(math.isnan(value) for value in found.values())


def test_metrics_take_the_given_probabilities() -> None:
    logits, targets = torch.zeros(2, 2), torch.tensor([0, 1])
    found = class_metrics(logits, torch.tensor([[0.9, 0.1], [0.2, 0.8]]), targets)
    assert found["accuracy"] == 1.0
    assert found["ece"] == pytest.approx(0.15)


def test_vote_rmse_is_the_root_of_the_mean_over_everything() -> None:
    fractions, targets = torch.zeros(2, 37), torch.zeros(2, 37)
    fractions[0, 0], targets[1, 36] = 0.3, 0.4
    assert vote_rmse(fractions, targets) == pytest.approx(math.sqrt(0.25 / 74), rel=1e-6)
    assert measure("votes", fractions, targets, outputs=torch.nn.Identity()) == {
        "rmse": pytest.approx(sk.root_mean_squared_error(targets.numpy().ravel(), fractions.numpy().ravel()))
    }
