"""Targets, splits and coverage, decided before an image is opened."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from galaxy_models.data.plan import ConvertSettings, Plan, _mirror_hints, plan_conversion, share_allows
from galaxy_models.data.readers.base import ImageSource, LoadedImage, Reader, Record
from galaxy_models.data.split import assign_split
from galaxy_models.errors import ConfigError, DataError
from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task


class _NoImage(ImageSource):
    def __init__(self, location: str) -> None:
        self._location = location

    @property
    def location(self) -> str:
        return self._location

    def load(self, *, px: int, crop: float) -> LoadedImage:
        raise AssertionError("a plan opens no image")


class ListReader(Reader):
    name = "list"
    summary = "galaxies from a list"

    def __init__(self, task: Task, galaxies: list[tuple[Any, ...]]) -> None:
        self._task = task
        self._galaxies = galaxies

    @classmethod
    def add_options(cls, parser: object) -> None: ...

    @classmethod
    def from_options(cls, options: object) -> Reader:
        raise NotImplementedError

    @property
    def survey(self) -> str:
        return "listed"

    @property
    def task(self) -> Task:
        return self._task

    def records(self) -> Iterator[Record]:
        for number, (object_id, target, *split) in enumerate(self._galaxies):
            yield Record(object_id, target, _NoImage(f"place {number}"), *split)

    def describe(self) -> dict[str, Any]:
        return {}


def settings(**values: Any) -> ConvertSettings:
    return ConvertSettings(out=Path("unused"), **values)


AB = Task(kind="classes", names=("a", "b"))
MANY = [(f"g{number}", "ab"[number % 2]) for number in range(200)]


def votes(**fractions: float) -> np.ndarray:
    row = np.zeros(37)
    for name, value in fractions.items():
        row[GZ2.columns.index("Class" + name.replace("_", ".").lstrip("c"))] = value
    return row


def test_galaxies_are_split_by_their_ids() -> None:
    plan = plan_conversion(ListReader(AB, MANY), settings(val=0.2, test=0.1))
    assert len(plan.galaxies) == 200
    for galaxy in plan.galaxies:
        assert galaxy.split == assign_split(galaxy.record.id, val=0.2, test=0.1)
        assert galaxy.target == "ab".index(str(galaxy.record.target))


def test_a_growing_survey_moves_no_galaxy() -> None:
    small = plan_conversion(ListReader(AB, MANY[:100]), settings())
    large = plan_conversion(ListReader(AB, MANY), settings())
    places = {galaxy.record.id: galaxy.split for galaxy in large.galaxies}
    assert all(places[galaxy.record.id] == galaxy.split for galaxy in small.galaxies)


@pytest.mark.parametrize("own", [("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")])
def test_the_surveys_own_split_is_kept_and_completed_from_train(own: tuple[str, ...]) -> None:
    galaxies = [(f"{split}/{number}", "ab"[number % 2], split) for split in own for number in range(200)]
    plan = plan_conversion(ListReader(AB, galaxies), settings())
    for galaxy in plan.galaxies:
        before = galaxy.record.split
        if before != "train" or galaxy.split in own:
            assert galaxy.split == before
        else:
            assert galaxy.split == assign_split(galaxy.record.id, val=0.1, test=0.1)
    assert {galaxy.split for galaxy in plan.galaxies} == {"train", "val", "test"}


def test_an_id_twice_names_both_places() -> None:
    with pytest.raises(DataError, match="id g3: found twice, for place 3 and for place 200"):
        plan_conversion(ListReader(AB, [*MANY, ("g3", "a")]), settings())


def test_an_id_that_is_no_text() -> None:
    with pytest.raises(DataError, match="found a name that is not UTF-8"):
        plan_conversion(ListReader(AB, [*MANY, ("edge/m\udce9", "a")]), settings())


def test_a_recipe_makes_classes_and_leaves_out_what_meets_no_rule() -> None:
    # Hand-made votes: for each of the five classes one galaxy that meets its rule, and one that meets none.
    kinds = [
        votes(c1_1=1, c7_1=0.8, c7_2=0.2),
        votes(c1_1=1, c7_2=0.8, c7_3=0.2),
        votes(c1_1=1, c7_3=0.8, c7_1=0.2),
        votes(c1_2=1, c2_1=0.8, c2_2=0.2, c3_2=0.2, c4_2=0.2, c5_1=0.2, c9_1=0.8),
        votes(c1_2=1, c2_2=1, c3_2=1, c4_1=0.8, c4_2=0.2, c5_1=1, c10_1=0.8, c11_1=0.8),
        votes(c1_3=1),
    ]
    galaxies = [(f"g{number:03}", kinds[number % 6]) for number in range(300)]
    reader = ListReader(Task(kind="votes", names=GZ2.columns), galaxies)
    plan = plan_conversion(reader, settings(recipe="five_class"))
    assert plan.task == Task(kind="classes", names=("round", "in_between", "cigar", "edge_on", "spiral"))
    assert plan.num_left_out == 50
    assert [galaxy.target for galaxy in plan.galaxies[:6]] == [0, 1, 2, 3, 4, 0]
    assert plan.recipe == "five_class"
    assert plan.notes == (
        "recipe five_class: round 50, in_between 50, cigar 50, edge_on 50, spiral 50; 50 meet no rule",
    )
    assert plan_conversion(reader, settings()).task.kind == "votes"
    assert plan_conversion(reader, settings(recipe="none")).num_left_out == 0


def test_a_recipe_class_without_galaxies() -> None:
    galaxies = [(f"g{number}", votes(c1_1=1, c7_1=1)) for number in range(50)]
    reader = ListReader(Task(kind="votes", names=GZ2.columns), galaxies)
    with pytest.raises(DataError, match=r"class 'in_between': .* train on .*: add more galaxies, or --recipe none"):
        plan_conversion(reader, settings(recipe="five_class"))


def test_votes_that_miss_the_sums_of_the_tree() -> None:
    # Conditional fractions: two answered question 7 out of ten who were asked question 1.
    right, wrong = votes(c1_1=0.2, c1_3=0.8, c7_1=0.2), votes(c1_1=0.2, c1_3=0.8, c7_1=1)
    task = Task(kind="votes", names=GZ2.columns)

    def plan(num_wrong: int) -> Plan:
        rows = [(f"g{number:03}", wrong if number >= 200 - num_wrong else right) for number in range(200)]
        return plan_conversion(ListReader(task, rows), settings())

    sums = r"id g19\d: found fractions of question 7 \(roundness\) that add up to 1\.000, expected 0\.200"
    assert plan(0).notes == ()
    (note,) = plan(2).notes
    assert re.fullmatch(f"2 galaxies have vote fractions that miss the tree's sums, and are kept; {sums}", note)
    assert len(plan(2).galaxies) == 200
    with pytest.raises(DataError, match=f"{sums}; so in 3 of 200 galaxies: these look conditional, expected cumul"):
        plan(3)


def test_question_6_and_rounded_votes_are_not_judged() -> None:
    rows = [votes(c1_1=1, c6_1=c6, c7_1=0.981, c8_1=c6) for c6 in (0.0, 0.4, 1.0)]
    galaxies = [(f"g{number}", rows[number % 3]) for number in range(100)]
    assert plan_conversion(ListReader(Task(kind="votes", names=GZ2.columns), galaxies), settings()).notes == ()


def test_the_order_of_rows_changes_nothing() -> None:
    forwards, backwards = (plan_conversion(ListReader(AB, rows), settings()) for rows in (MANY, MANY[::-1]))
    assert [galaxy.record.id for galaxy in forwards.galaxies] == sorted(row[0] for row in MANY)
    assert [galaxy.record.id for galaxy in backwards.galaxies] == [galaxy.record.id for galaxy in forwards.galaxies]


def test_classes_are_counted() -> None:
    rows = [(f"g{number}", "ab"[number % 5 == 0]) for number in range(2000)]
    assert plan_conversion(ListReader(AB, rows), settings()).notes == ("classes: a 1,600, b 400",)


def test_a_class_that_is_only_in_the_test_split() -> None:
    name = next(f"x{number}" for number in range(1000) if assign_split(f"x{number}", val=0.1, test=0.1) == "test")
    task = Task(kind="classes", names=("a", "b", "c"))
    with pytest.raises(DataError, match=r"class 'c': found no galaxy of it to train on \(train 0, val 0, test 1\)"):
        plan_conversion(ListReader(task, [*MANY, (name, "c")]), settings())


def test_a_split_without_galaxies() -> None:
    train = [item for item in MANY if assign_split(item[0], val=0.1, test=0.1) != "val"]
    with pytest.raises(DataError, match=r"split val: found no galaxy in it \(train 1\d\d, val 0, test \d+\)"):
        plan_conversion(ListReader(AB, train), settings())


def test_no_galaxies_at_all() -> None:
    with pytest.raises(DataError, match="listed: found no galaxies"):
        plan_conversion(ListReader(AB, []), settings())


def test_mirror_pairs() -> None:
    plan = plan_conversion(ListReader(AB, MANY), settings(mirror_pairs=(("a", "b"),)))
    assert plan.task.mirror_order == (1, 0)
    with pytest.raises(ConfigError, match="mirror pairs: got 'c'"):
        plan_conversion(ListReader(AB, MANY), settings(mirror_pairs=(("a", "c"),)))
    reader = ListReader(Task(kind="votes", names=GZ2.columns), [("g", np.zeros(37))])
    with pytest.raises(ConfigError, match="--mirror-pairs: got pairs for vote fractions"):
        plan_conversion(reader, settings(mirror_pairs=(("Class1.1", "Class1.2"),)))


def test_a_recipe_for_classes() -> None:
    with pytest.raises(ConfigError, match="--recipe: got five_class for a survey that gives classes"):
        plan_conversion(ListReader(AB, MANY), settings(recipe="five_class"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"px": 15}, "--px: got 15, expected a whole number from 16 to 1024"),
        ({"px": 1025}, "--px: got 1025"),
        ({"crop": 0.0}, "--crop: got 0.0"),
        ({"crop": 1.01}, "--crop: got 1.01"),
        ({"crop": float("nan")}, "--crop: got nan"),
        ({"val": 0.0}, "--val: got 0.0"),
        ({"test": 1.0}, "--test: got 1.0"),
        ({"val": 0.5, "test": 0.5}, "--val and --test: got 1 together, expected less than 1"),
        ({"num_workers": 0}, "--workers: got 0"),
        ({"max_rejected": -0.1}, "--max-rejected: got -0.1"),
        ({"survey": ""}, "--survey: got '', expected a name"),
        ({"recipe": "six_class"}, "--recipe: got six_class, expected one of none, five_class, five_class_conditional"),
    ],
)
def test_settings_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**values)


@pytest.mark.parametrize(
    ("num_rejected", "num_galaxies", "share", "allowed"),
    [
        (0, 5, 0.0, True),
        (1, 5, 0.0, False),
        (1, 100, 0.01, True),
        (2, 100, 0.01, False),
        (29, 100, 0.29, True),
        (100, 100, 1.0, True),
    ],
)
def test_share_of_rejected_images(num_rejected: int, num_galaxies: int, share: float, allowed: bool) -> None:
    assert share_allows(num_rejected, num_galaxies, share) is allowed


def test_classes_that_look_like_mirror_images_are_named_unless_they_are_paired() -> None:
    names = ("elliptical", "spiral_acw", "spiral_cw", "Left arm", "right arm")
    hints = list(_mirror_hints(Task("classes", names)))
    assert len(hints) == 2
    assert "--mirror-pairs spiral_cw:spiral_acw" in hints[0] + hints[1]
    assert "--mirror-pairs Left arm:right arm" in hints[0] + hints[1]
    assert len(list(_mirror_hints(Task("classes", names, (("spiral_cw", "spiral_acw"),))))) == 1
    assert not list(_mirror_hints(Task("classes", ("smooth", "featured"))))
