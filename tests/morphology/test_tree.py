"""The decision tree against the published tree, hand tables and the real label rows."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from galaxy_models.morphology.tree import GZ2

# Willett et al. 2013, table 2: number of answers of each question, and where each answer leads.
PUBLISHED_FLOW = {
    1: [7, 2, None],
    2: [9, 3],
    3: [4, 4],
    4: [10, 5],
    5: [6, 6, 6, 6],
    6: [8, None],
    7: [6, 6, 6],
    8: [None] * 7,
    9: [6, 6, 6],
    10: [11, 11, 11],
    11: [5] * 6,
}


def read_label_rows(folder: Path) -> tuple[list[str], np.ndarray]:
    """Column names and the (N, 37) fractions of all real label rows, as their files give them."""
    rows: list[list[float]] = []
    for name in ("label_rows_without_images.csv", "training_solutions_rev1.csv"):
        with (folder / "kaggle" / name).open(newline="") as file:
            lines = list(csv.reader(file))
        rows += [[float(value) for value in line[1:]] for line in lines[1:]]
    return lines[0][1:], np.array(rows)


def one_row(**fractions: float) -> np.ndarray:
    """A (1, 37) row of zeros but for the named columns, such as c1_2=0.6 for Class1.2."""
    row = np.zeros((1, 37))
    for name, fraction in fractions.items():
        row[0, GZ2.columns.index("Class" + name[1:].replace("_", "."))] = fraction
    return row


def random_conditional(seed: int, num_rows: int = 8) -> np.ndarray:
    """(N, 37) random fractions that sum to 1 within each question, with some zeros among them."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.dirichlet(np.full(len(question.answers), 0.3), num_rows) for question in GZ2.questions], axis=1
    )


def test_questions_and_flow_are_the_published_ones():
    assert {q.number: [answer.leads_to for answer in q.answers] for q in GZ2.questions} == PUBLISHED_FLOW
    assert len(GZ2.columns) == 37
    assert GZ2.columns[:4] == ("Class1.1", "Class1.2", "Class1.3", "Class2.1")
    assert GZ2.columns[-1] == "Class11.6"


def test_walk_order_asks_each_question_after_all_that_lead_to_it():
    place = {question.number: i for i, question in enumerate(GZ2.walk_order)}
    assert sorted(place) == list(range(1, 12))
    for number, ways in PUBLISHED_FLOW.items():
        assert all(place[number] < place[way] for way in ways if way is not None)


def test_parents_are_the_published_sums():
    parents = {question.number: tuple(GZ2.columns[i] for i in question.parents) for question in GZ2.questions}
    assert parents == {
        **dict.fromkeys((1, 6), ()),
        2: ("Class1.2",),
        **dict.fromkeys((3, 4, 5), ("Class2.2",)),
        7: ("Class1.1",),
        8: ("Class6.1",),
        9: ("Class2.1",),
        **dict.fromkeys((10, 11), ("Class4.1",)),
    }


def test_slices_cut_the_columns_by_question():
    assert [GZ2.columns[question.columns] for question in GZ2.questions] == [q.column_names for q in GZ2.questions]


def test_real_rows_obey_the_sums(real_data):
    names, fractions = read_label_rows(real_data)
    assert tuple(names) == GZ2.columns
    assert len(fractions) > 900
    assert np.abs(GZ2.sum_errors(fractions)).max() < 2e-6  # the files give nine decimals, some rows only six


def test_real_rows_have_the_known_error_of_question_6(real_data):
    names, fractions = read_label_rows(real_data)
    odd = fractions[:, [names.index("Class6.1"), names.index("Class6.2")]].sum(axis=1)
    asked = 1 - fractions[:, names.index("Class1.3")]
    np.testing.assert_allclose(odd, 1, atol=2e-6)
    assert np.abs(odd - asked).max() > 0.05


def test_real_rows_survive_the_round_trip(real_data):
    _, fractions = read_label_rows(real_data)
    back = GZ2.cumulative(GZ2.conditional(fractions))
    np.testing.assert_allclose(back, fractions, atol=5e-6)


def test_conditional_of_a_hand_computed_row():
    row = one_row(c1_1=0.4, c1_2=0.6, c2_1=0.15, c2_2=0.45, c4_1=0.36, c4_2=0.09, c10_2=0.09, c7_3=0.1, c6_2=1)
    conditional = dict(zip(GZ2.columns, GZ2.conditional(row)[0], strict=True))
    expected = {"Class2.1": 0.25, "Class4.1": 0.8, "Class10.2": 0.25, "Class7.3": 0.25, "Class1.2": 0.6, "Class6.2": 1}
    assert {name: conditional[name] for name in expected} == pytest.approx(expected)


def test_conditional_is_nan_where_nobody_was_asked():
    conditional = GZ2.conditional(one_row(c1_1=1, c7_1=1, c6_2=1))
    unasked = np.isnan(conditional[0])
    numbers = {q.number for q in GZ2.questions if unasked[q.columns].all()}
    assert numbers == {2, 3, 4, 5, 8, 9, 10, 11}
    assert unasked.sum() == 37 - 3 - 2 - 3


def test_cumulative_ignores_nan_below_a_zero_and_keeps_it_elsewhere():
    conditional = np.full((1, 37), np.nan)
    conditional[0, :3] = (0, 0, 1)
    cumulative = GZ2.cumulative(conditional)[0]
    asked_of_all = GZ2.questions[5].columns
    assert np.isnan(cumulative[asked_of_all]).all()
    cumulative[asked_of_all] = 0
    assert cumulative[2] == 1
    below_question_6 = GZ2.questions[7].columns
    assert np.isnan(cumulative[below_question_6]).all()
    cumulative[below_question_6] = 0
    assert cumulative.sum() == 1


@given(st.integers(0, 2**32))
def test_cumulative_obeys_the_tree(seed):
    cumulative = GZ2.cumulative(random_conditional(seed))
    assert (cumulative >= 0).all()
    np.testing.assert_allclose(GZ2.sum_errors(cumulative), 0, atol=1e-12)


@given(arrays(np.float64, (3, 37), elements=st.floats(0, 1)))
def test_sum_errors_are_those_of_a_plain_loop(fractions):
    by_name = dict(zip(GZ2.columns, fractions.T, strict=True))
    expected = by_name["Class9.1"] + by_name["Class9.2"] + by_name["Class9.3"] - by_name["Class2.1"]
    np.testing.assert_allclose(GZ2.sum_errors(fractions)[:, 8], expected, atol=1e-12)
    np.testing.assert_allclose(GZ2.sum_errors(fractions)[:, 5], by_name["Class6.1"] + by_name["Class6.2"] - 1)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 36\), expected \(N, 37\)"):
        GZ2.conditional(np.zeros((2, 36)))
