"""Training losses against closed forms and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from shapes_survey import CLASSES, VOTES, small_config
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from galaxy_models.training.losses import TrainLoss, balance_weights, class_loss, vote_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0], [-2.0, 0.5, 0.0]])
TARGETS = torch.tensor([0, 2, 1, 0])
PROBABILITIES = (LOGITS.double().exp() / LOGITS.double().exp().sum(1, keepdim=True)).numpy()


def test_unsmoothed_loss_is_the_log_loss() -> None:
    expected = log_loss(TARGETS.numpy(), PROBABILITIES, labels=[0, 1, 2])
    assert class_loss(LOGITS, TARGETS).item() == pytest.approx(expected, rel=1e-6)


def test_smoothing_moves_its_share_of_each_label_to_all_classes() -> None:
    smoothed = 0.7 * np.eye(3)[TARGETS.numpy()] + 0.3 / 3
    expected = -(smoothed * np.log(PROBABILITIES)).sum(axis=1).mean()
    assert class_loss(LOGITS, TARGETS, label_smoothing=0.3).item() == pytest.approx(expected, rel=1e-6)


def test_weights_multiply_each_galaxy_and_the_mean_is_over_galaxies() -> None:
    weights = np.array([0.5, 2.0, 4.0])
    expected = (-np.log(PROBABILITIES[range(4), TARGETS.numpy()]) * weights[TARGETS.numpy()]).mean()
    loss = class_loss(LOGITS, TARGETS, class_weights=torch.from_numpy(weights))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_balance_weights_are_those_of_scikit_learn() -> None:
    labels = np.array([0] * 70 + [1] * 25 + [2] * 5)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balance_weights(labels, num_classes=3).numpy(), expected, rtol=1e-6)


def test_balance_weights_of_an_absent_class_are_finite_and_do_not_change_the_others() -> None:
    labels = np.array([0, 0, 0, 2])
    np.testing.assert_allclose(balance_weights(labels, num_classes=3).numpy(), [4 / 6, 2.0, 2.0], rtol=1e-6)


def test_vote_loss_is_the_mean_square_over_all_columns() -> None:
    targets = torch.zeros(2, 37)
    fractions = torch.zeros(2, 37)
    fractions[1, 4] = 0.5
    assert vote_loss(fractions, targets).item() == pytest.approx(0.25 / 74)


def test_votes_ignore_smoothing_and_balance() -> None:
    config = small_config(label_smoothing=0.5, class_balance="loss")
    loss = TrainLoss.for_config(config, VOTES, targets=np.zeros((2, 37), np.float32))
    value = loss(torch.zeros(2, 37), torch.full((2, 37), 0.5), outputs=torch.sigmoid)
    assert value.item() == 0.0


def test_config_decides_smoothing_and_weights() -> None:
    labels = np.array([0, 0, 1, 2])
    config = small_config(label_smoothing=0.2, class_balance="loss")
    loss = TrainLoss.for_config(config, CLASSES, targets=labels)
    logits = torch.zeros(1, 3)
    assert loss(logits, torch.tensor([0]), outputs=torch.softmax).item() == pytest.approx(math.log(3) * 4 / 6)
    assert loss(logits, torch.tensor([1]), outputs=torch.softmax).item() == pytest.approx(math.log(3) * 4 / 3)
    assert loss.label_smoothing == 0.2
