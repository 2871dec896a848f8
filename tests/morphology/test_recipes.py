"""Class recipes against hand tables and the real label rows."""

import csv

import numpy as np
import pytest

from galaxy_models.morphology.recipes import RECIPES
from galaxy_models.morphology.tree import GZ2

CLASSES = ("round", "in_between", "cigar", "edge_on", "spiral")

# Columns above zero -> the class of the cumulative recipe and of the conditional one, worked out by hand.
HAND_TABLE = [
    ({"1.1": 0.9, "7.1": 0.6, "7.2": 0.3}, "round", "round"),
    ({"1.1": 0.9, "7.1": 0.3, "7.2": 0.6}, "in_between", "in_between"),
    ({"1.1": 0.9, "7.3": 0.6}, "cigar", "cigar"),
    ({"1.2": 0.9, "2.1": 0.7}, "edge_on", "edge_on"),
    ({"1.2": 0.9, "2.2": 0.85, "4.1": 0.7}, "spiral", "spiral"),
    # 0.35 of all is 0.7 of those who were asked.
    ({"1.1": 0.5, "7.1": 0.35}, None, "round"),
    # 0.4 of all is 0.4 / 0.6 = 0.667 of those who were asked.
    ({"1.2": 0.6, "2.1": 0.4}, None, "edge_on"),
    # 0.5 / 0.6 = 0.833 not edge-on, of whom 0.35 / 0.5 = 0.7 see arms.
    ({"1.2": 0.6, "2.2": 0.5, "4.1": 0.35}, None, "spiral"),
    # The first question's threshold holds in both forms.
    ({"1.1": 0.468, "7.1": 0.468}, None, None),
    ({"1.2": 0.42, "2.1": 0.42}, None, None),
    # On the threshold is met.
    ({"1.1": 0.5, "7.2": 0.5}, "in_between", "in_between"),
    # Two rules at once: smooth (0.25 / 0.5) before featured (0.4 / 0.5), round before in between.
    ({"1.1": 0.5, "7.2": 0.25, "1.2": 0.5, "2.1": 0.4}, None, "in_between"),
    ({"1.1": 1.0, "7.1": 0.5, "7.2": 0.5}, "round", "round"),
    ({"1.3": 1.0}, None, None),
]


def to_row(fractions: dict[str, float]) -> np.ndarray:
    row = np.zeros(37)
    for name, fraction in fractions.items():
        row[GZ2.columns.index(f"Class{name}")] = fraction
    return row


def names_of(classes: np.ndarray) -> list[str | None]:
    return [None if number == -1 else CLASSES[number] for number in classes]


@pytest.mark.parametrize(("name", "column"), [("five_class", 1), ("five_class_conditional", 2)])
def test_hand_table(name, column):
    fractions = np.array([to_row(case[0]) for case in HAND_TABLE])
    assert names_of(RECIPES[name].apply(fractions)) == [case[column] for case in HAND_TABLE]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_classes_and_types(recipe):
    assert recipe.class_names == CLASSES
    classes = recipe.apply(np.full((3, 37), np.nan))
    assert classes.dtype == np.int64
    assert classes.tolist() == [-1, -1, -1]
    assert recipe.apply(np.zeros((0, 37))).shape == (0,)


@pytest.mark.parametrize(
    ("name", "expected"), [("five_class", [126, 127, 7, 69, 139]), ("five_class_conditional", [194, 211, 25, 97, 192])]
)
def test_counts_on_real_rows(name, expected, real_data):
    rows = []
    for file_name in ("label_rows_without_images.csv", "training_solutions_rev1.csv"):
        with (real_data / "kaggle" / file_name).open(newline="") as file:
            rows += [{key[5:]: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    fractions = np.array([[row[column[5:]] for column in GZ2.columns] for row in rows])
    counts = np.bincount(RECIPES[name].apply(fractions) + 1, minlength=6)[1:]
    assert counts.tolist() == expected == _counted_row_by_row(rows, conditional="conditional" in name)


def _counted_row_by_row(rows: list[dict[str, float]], *, conditional: bool) -> list[int]:
    """The rules of the published table, spelled out without arrays."""
    counts = [0] * 5
    for row in rows:

        def share(answer: str, parent: str, row: dict[str, float] = row) -> float:
            if not conditional:
                return row[answer]
            return row[answer] / row[parent] if row[parent] else 0.0

        if row["1.1"] >= 0.469 and max(share(f"7.{i}", "1.1") for i in (1, 2, 3)) >= 0.5:
            counts[[share(f"7.{i}", "1.1") >= 0.5 for i in (1, 2, 3)].index(True)] += 1
        elif row["1.2"] >= 0.43 and share("2.1", "1.2") >= 0.602:
            counts[3] += 1
        elif row["1.2"] >= 0.43 and share("2.2", "1.2") >= 0.715 and share("4.1", "2.2") >= 0.619:
            counts[4] += 1
    return counts
