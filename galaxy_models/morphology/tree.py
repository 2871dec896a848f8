"""The decision tree of Galaxy Zoo 2 as data, and the arithmetic of its vote fractions.

Source:
    Willett et al. 2013, MNRAS 435, 2835, figure 1 and table 2; the column names and the sums of the
    "Galaxy Zoo - The Galaxy Challenge" (Kaggle, 2013).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """One answer of a question.

    Attributes:
        text: what the volunteer clicks.
        leads_to: number of the question asked next, or None where the volunteer is done.
    """

    text: str
    leads_to: int | None


@dataclass(frozen=True)
class Question:
    """One question of the tree.

    Attributes:
        number: from 1 to 11; its columns are `Class<number>.1` and on.
        name: short name, for code and tables.
        text: what the volunteer reads.
        answers: in the order of the columns.
        first_column: index of its first answer among all columns.
        parents: indices of the columns whose sum its answers' cumulative fractions add up to; empty for 1.
    """

    number: int
    name: str
    text: str
    answers: tuple[Answer, ...]
    first_column: int
    parents: tuple[int, ...]

    @property
    def columns(self) -> slice:
        """Where its answers are among all columns."""
        return slice(self.first_column, self.first_column + len(self.answers))

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of its columns, such as `Class7.1`."""
        return tuple(f"Class{self.number}.{i}" for i in range(1, len(self.answers) + 1))


@dataclass(frozen=True)
class DecisionTree:
    """Questions, answers and what the fractions of each question add up to.

    Fractions are *cumulative* (out of everybody who classified the galaxy, as in the Kaggle columns: each
    question's answers sum to its parents) or *conditional* (out of those who were asked: they sum to 1).

    Attributes:
        questions: in order of number; a question's parents belong to questions before it.
    """

    questions: tuple[Question, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all answers' columns, in order."""
        return tuple(name for question in self.questions for name in question.column_names)

    @cached_property
    def walk_order(self) -> tuple[Question, ...]:
        """The questions such that each comes after every question that can lead to it."""
        ordered: list[Question] = []
        waiting = list(self.questions)
        while waiting:
            ahead = {answer.leads_to for question in waiting for answer in question.answers}
            ready = [question for question in waiting if question.number not in ahead]
            assert ready, "the tree has a loop"
            ordered += ready
            waiting = [question for question in waiting if question not in ready]
        return tuple(ordered)

    def parent_fractions(self, cumulative: Floats) -> Floats:
        """What each question's fractions should add up to.

        Args:
            cumulative: (N, 37) cumulative fractions.

        Returns:
            (N, 11): the sum of each question's parent columns, 1 where it has none.
        """
        cumulative = self._checked(cumulative)
        parents = np.ones((len(cumulative), len(self.questions)))
        for i, question in enumerate(self.questions):
            if question.parents:
                parents[:, i] = cumulative[:, list(question.parents)].sum(axis=1)
        return parents

    def sum_errors(self, cumulative: Floats) -> Floats:
        """By how much each question's fractions miss the sum that the tree asks for.

        Args:
            cumulative: (N, 37) cumulative fractions.

        Returns:
            (N, 11): sum of the question's answers minus that of its parents; within 1e-6 of 0 for the
            Kaggle rows, which are rounded to nine digits; NaN where a fraction is NaN.
        """
        cumulative = self._checked(cumulative)
        sums = np.stack([cumulative[:, question.columns].sum(axis=1) for question in self.questions], axis=1)
        return sums - self.parent_fractions(cumulative)

    def conditional(self, cumulative: Floats) -> Floats:
        """Divide each question's fractions by its parents': the share of those who were asked.

        Args:
            cumulative: (N, 37) cumulative fractions.

        Returns:
            (N, 37) conditional fractions. NaN where the parents' fraction is 0: nobody was asked, so there is
            no share to speak of. A NaN in a fraction or its parent stays NaN.
        """
        cumulative = self._checked(cumulative)
        parents = self.parent_fractions(cumulative)
        divisors = np.where(parents == 0, np.nan, parents)
        return cumulative / np.repeat(divisors, [len(question.answers) for question in self.questions], axis=1)

    def cumulative(self, conditional: Floats) -> Floats:
        """Multiply each question's fractions by its parents': the inverse of `conditional`.

        Args:
            conditional: (N, 37) fractions of those who were asked.

        Returns:
            (N, 37) cumulative fractions: 0 below a parent of 0, whatever the conditional fraction (NaN included);
            NaN where a conditional fraction is NaN although its question was asked.
        """
        conditional = self._checked(conditional)
        cumulative = np.zeros_like(conditional)
        for question in self.questions:
            answers = conditional[:, question.columns]
            if question.parents:
                parents = cumulative[:, list(question.parents)].sum(axis=1, keepdims=True)
                answers = np.where(parents == 0, 0.0, answers * parents)
            cumulative[:, question.columns] = answers
        return cumulative

    def _checked(self, fractions: Floats) -> Floats:
        fractions = np.asarray(fractions, dtype=np.float64)
        if fractions.ndim != 2 or fractions.shape[1] != len(self.columns):
            raise ValueError(
                f"vote fractions: got an array of shape {fractions.shape}, expected (N, {len(self.columns)}): "
                "one row a galaxy, one column an answer"
            )
        return fractions


def _gz2_tree() -> DecisionTree:
    # (name, text, the column its answers sum to, [(answer, next question)]), as the volunteers met them. Question 6
    # comes after 5, 7 and 9, so its answers should sum to Class1.1 + Class1.2; in the Kaggle columns they sum to 1,
    # a known error of that data set which is kept here, since every prediction is scored against those columns.
    table: list[tuple[str, str, str | None, list[tuple[str, int | None]]]] = [
        (
            "smooth_or_featured",
            "Is the galaxy simply smooth and rounded, with no sign of a disk?",
            None,
            [("smooth", 7), ("features or disk", 2), ("star or artifact", None)],
        ),
        ("edge_on", "Could this be a disk viewed edge-on?", "Class1.2", [("yes", 9), ("no", 3)]),
        (
            "bar",
            "Is there a sign of a bar feature through the centre of the galaxy?",
            "Class2.2",
            [("bar", 4), ("no bar", 4)],
        ),
        (
            "spiral",
            "Is there any sign of a spiral arm pattern?",
            "Class2.2",
            [("spiral", 10), ("no spiral", 5)],
        ),
        (
            "bulge_prominence",
            "How prominent is the central bulge, compared with the rest of the galaxy?",
            "Class2.2",
            [("no bulge", 6), ("just noticeable", 6), ("obvious", 6), ("dominant", 6)],
        ),
        ("odd", "Is there anything odd?", None, [("yes", 8), ("no", None)]),
        (
            "roundness",
            "How rounded is it?",
            "Class1.1",
            [("completely round", 6), ("in between", 6), ("cigar-shaped", 6)],
        ),
        (
            "odd_feature",
            "Is the odd feature a ring, or is the galaxy disturbed or irregular?",
            "Class6.1",
            [
                ("ring", None),
                ("lens or arc", None),
                ("disturbed", None),
                ("irregular", None),
                ("other", None),
                ("merger", None),
                ("dust lane", None),
            ],
        ),
        (
            "edge_on_bulge",
            "Does the galaxy have a bulge at its centre? If so, what shape?",
            "Class2.1",
            [("rounded", 6), ("boxy", 6), ("no bulge", 6)],
        ),
        (
            "winding",
            "How tightly wound do the spiral arms appear?",
            "Class4.1",
            [("tight", 11), ("medium", 11), ("loose", 11)],
        ),
        (
            "num_arms",
            "How many spiral arms are there?",
            "Class4.1",
            [("1", 5), ("2", 5), ("3", 5), ("4", 5), ("more than four", 5), ("can't tell", 5)],
        ),
    ]
    questions: list[Question] = []
    names: list[str] = []
    for number, (name, text, parent, answers) in enumerate(table, start=1):
        parents = () if parent is None else (names.index(parent),)
        question = Question(number, name, text, tuple(Answer(*answer) for answer in answers), len(names), parents)
        questions.append(question)
        names += question.column_names
    return DecisionTree(tuple(questions))


GZ2 = _gz2_tree()
