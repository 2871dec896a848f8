"""The heads: probabilities, and vote fractions that obey the decision tree for any logits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from galaxy_models.config import CnnConfig, TrainConfig
from galaxy_models.errors import ConfigError
from galaxy_models.models import build_model
from galaxy_models.models.heads import make_head
from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task

VOTES = Task("votes", GZ2.columns)
CLASSES = Task("classes", ("smooth", "disk", "merger"))

# What each question's answers sum to, by name of column; none for 1 and 6. From the competition's page on its tree.
PARENTS = {2: "1.2", 3: "2.2", 4: "2.2", 5: "2.2", 7: "1.1", 8: "6.1", 9: "2.1", 10: "4.1", 11: "4.1"}


def vote_outputs(logits: torch.Tensor) -> torch.Tensor:
    return make_head(8, VOTES, drop_rate=0.0).outputs(logits)


@settings(deadline=None)  # a busy machine is no fault of the tree
@given(arrays(np.float32, (3, 37), elements=st.floats(-1e4, 1e4, width=32)))
def test_votes_obey_the_tree_for_any_logits(logits):
    fractions = vote_outputs(torch.from_numpy(logits)).numpy().astype(np.float64)
    assert ((fractions >= 0) & (fractions <= 1)).all()
    by_column = dict(zip(GZ2.columns, fractions.T, strict=True))
    for question in range(1, 12):
        total = sum(values for name, values in by_column.items() if name.startswith(f"Class{question}."))
        parent = by_column["Class" + PARENTS[question]] if question in PARENTS else 1.0
        np.testing.assert_allclose(total, np.broadcast_to(parent, 3), atol=1e-6)


def test_votes_of_equal_logits():
    # By hand: 1/3 for each answer of question 1, a half of that for each of question 2, and so on down.
    fractions = dict(zip(GZ2.columns, vote_outputs(torch.zeros(1, 37))[0].tolist(), strict=True))
    by_hand = {"1.3": 1 / 3, "2.2": 1 / 6, "3.1": 1 / 12, "4.1": 1 / 12, "5.4": 1 / 24, "6.1": 1 / 2, "7.2": 1 / 9}
    by_hand |= {"8.7": 1 / 14, "9.1": 1 / 18, "10.2": 1 / 36, "11.6": 1 / 72}
    assert {name: fractions["Class" + name] for name in by_hand} == pytest.approx(by_hand, rel=1e-6)


def test_votes_answer_the_logit_of_their_own_column():
    logits = torch.zeros(1, 37)
    for name in ("Class1.2", "Class2.2", "Class4.1", "Class10.3"):
        logits[0, GZ2.columns.index(name)] = 50.0
    fractions = dict(zip(GZ2.columns, vote_outputs(logits)[0].tolist(), strict=True))
    assert fractions["Class10.3"] == pytest.approx(1.0)
    assert fractions["Class7.1"] == pytest.approx(0.0)


def test_vote_head_learns_through_the_tree():
    model = build_model(TrainConfig(backbone="cnn", cnn=CnnConfig(width=8)), VOTES, px=32)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ((model.outputs(model(images)) - 1 / 37) ** 2).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_votes_need_the_columns_of_the_tree():
    reversed_columns = Task("votes", tuple(reversed(GZ2.columns)))
    with pytest.raises(ConfigError, match=r"got vote columns Class11\.6, .* expected the 37 of the decision tree"):
        make_head(8, reversed_columns, drop_rate=0.0)


def test_probabilities_of_known_odds():
    head = make_head(8, CLASSES, drop_rate=0.0)
    odds = torch.tensor([[1.0, 2.0, 5.0]])
    outputs = head.outputs(odds.log().to(torch.bfloat16))
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, odds / 8, atol=0.01, rtol=0)


def test_dropout_only_while_training():
    # 64 features of 1, those kept divided by 0.6: no number of kept ones adds up to 64.
    head = make_head(64, CLASSES, drop_rate=0.4)
    nn.init.ones_(head.linear.weight)
    features = torch.ones(1, 64)
    assert head.eval()(features)[0, 0] == 64
    assert head.train()(features)[0, 0] != 64
