"""What a conversion will write, decided before the first image is decoded: targets, splits, and what is left out."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from galaxy_models.data.manifest import SPLIT_NAMES
from galaxy_models.data.readers.base import Reader, Record
from galaxy_models.data.split import assign_split
from galaxy_models.errors import ConfigError, DataError
from galaxy_models.morphology.recipes import NO_CLASS, RECIPES
from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task

NO_RECIPE = "none"
# Fractions that were rounded to two digits miss their sums by no more than this.
_SUM_TOLERANCE = 0.02
_MAX_WRONG_SUMS = 0.01
# Words for the two senses of rotation or position that a mirror exchanges.
_MIRROR_WORDS = (("cw", "acw"), ("cw", "ccw"), ("clockwise", "anticlockwise"), ("left", "right"))
# Its fractions add up to 1 in the Kaggle columns, and to Class1.1 + Class1.2 elsewhere: neither is a mistake.
_FREE_QUESTION = 6


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """How a survey is converted.

    Attributes:
        out: folder to make.
        px: side of the stored images, in pixels.
        crop: share of each image's shorter side to keep, about its centre.
        val: share of galaxies for validation.
        test: share of galaxies for the final evaluation.
        num_workers: processes that decode images.
        max_rejected: share of images that may be unreadable.
        force: whether an earlier conversion in `out` is replaced.
        survey: the survey's name; None = the reader's.
        mirror_pairs: pairs of classes that a mirror image exchanges.
        recipe: makes classes of vote fractions; None = the reader's default, `none` = keep the votes.
    """

    out: Path
    px: int = 128
    crop: float = 0.5
    val: float = 0.1
    test: float = 0.1
    num_workers: int = 1
    max_rejected: float = 0.01
    force: bool = False
    survey: str | None = None
    mirror_pairs: tuple[tuple[str, str], ...] = ()
    recipe: str | None = None

    def __post_init__(self) -> None:
        self._check("--px", 16 <= self.px <= 1024, self.px, "a whole number from 16 to 1024")
        self._check("--crop", 0 < self.crop <= 1, self.crop, "a share above 0, up to 1")
        self._check("--val", 0 < self.val < 1, self.val, "a share between 0 and 1")
        self._check("--test", 0 < self.test < 1, self.test, "a share between 0 and 1")
        total = self.val + self.test
        self._check("--val and --test", total < 1, f"{total:g} together", "less than 1, which leaves some to train on")
        self._check("--workers", 1 <= self.num_workers <= 1024, self.num_workers, "a whole number from 1 to 1024")
        self._check("--max-rejected", 0 <= self.max_rejected <= 1, self.max_rejected, "a share from 0 to 1")
        self._check("--survey", self.survey != "", repr(self.survey), "a name")
        names = (NO_RECIPE, *RECIPES)
        self._check("--recipe", self.recipe in (None, *names), self.recipe, f"one of {', '.join(names)}")

    def _check(self, option: str, is_right: bool, found: object, expected: str) -> None:
        if not is_right:
            raise ConfigError(f"{option}: got {found}, expected {expected}")


@dataclass(frozen=True)
class PlannedGalaxy:
    """One galaxy that will be converted, unless its image cannot be read.

    Attributes:
        record: as the reader gave it.
        split: `train`, `val` or `test`.
        target: the class's index, or the vote fractions.
    """

    record: Record
    split: str
    target: Any


@dataclass(frozen=True)
class Plan:
    """A survey's galaxies with targets and splits.

    Attributes:
        task: with mirror pairs.
        galaxies: by id, so that no row order of the survey changes what is written.
        num_left_out: galaxies that meet no rule of the recipe.
        recipe: the recipe applied, or None.
        notes: what the user should be told.
        remedy: what to do where a class or a split has too few galaxies.
    """

    task: Task
    galaxies: tuple[PlannedGalaxy, ...]
    num_left_out: int
    recipe: str | None
    notes: tuple[str, ...]
    remedy: str


def plan_conversion(reader: Reader, settings: ConvertSettings) -> Plan:
    """Give each galaxy its target and its split.

    Args:
        reader: the opened survey.
        settings: shares of the splits, recipe and mirror pairs.

    Raises:
        DataError: an id twice, a class or a split without galaxies, votes that do not obey the tree.
        ConfigError: a mirror pair or a recipe that does not fit the survey.
    """
    records = list(reader.records())
    if not records:
        raise DataError(f"{reader.survey}: found no galaxies: check the source")
    _check_ids(records)
    task, targets, recipe = _label(reader, records, settings)
    notes = _check_votes(records) if reader.task.kind == "votes" else ()
    splits = _assign_splits(records, settings)
    planned = [
        PlannedGalaxy(record, split, target)
        for record, split, target in zip(records, splits, targets, strict=True)
        if target is not None
    ]
    galaxies = tuple(sorted(planned, key=lambda galaxy: galaxy.record.id))
    num_left_out = len(records) - len(galaxies)
    if task.kind == "classes":
        notes = (*notes, _describe_classes(task, galaxies, num_left_out, recipe), *_mirror_hints(task))
    remedy = f"{'draw' if reader.simulated else 'add'} more galaxies, or " + (
        f"--recipe {NO_RECIPE}" if recipe else "take the class out"
    )
    check_coverage(task, ((galaxy.split, galaxy.target) for galaxy in galaxies), remedy=remedy)
    return Plan(task, galaxies, num_left_out, recipe, notes, remedy)


def check_coverage(task: Task, galaxies: Iterable[tuple[str, Any]], *, remedy: str) -> dict[str, Counter[int]]:
    """Count galaxies per split and class, and insist on what training needs.

    Args:
        task: the survey's task.
        galaxies: split and target of each.
        remedy: what to do where a class has none.

    Returns:
        For each split the number of galaxies of each class; votes all count under 0.

    Raises:
        DataError: a split is empty, or a class has no galaxy to train on.
    """
    counts: dict[str, Counter[int]] = {name: Counter() for name in SPLIT_NAMES}
    for split, target in galaxies:
        counts[split][target if task.kind == "classes" else 0] += 1
    totals = ", ".join(f"{name} {counts[name].total():,}" for name in SPLIT_NAMES)
    if task.kind == "classes":
        for number, name in enumerate(task.names):
            found = ", ".join(f"{split} {counts[split][number]:,}" for split in SPLIT_NAMES)
            if not counts["train"][number]:
                raise DataError(f"class {name!r}: found no galaxy of it to train on ({found}): {remedy}")
    for name in SPLIT_NAMES:
        if not counts[name]:
            raise DataError(f"split {name}: found no galaxy in it ({totals}): raise its share or add galaxies")
    return counts


def _describe_classes(task: Task, galaxies: Sequence[PlannedGalaxy], num_left_out: int, recipe: str | None) -> str:
    counts = Counter(galaxy.target for galaxy in galaxies)
    classes = ", ".join(f"{name} {counts[number]:,}" for number, name in enumerate(task.names))
    return f"recipe {recipe}: {classes}; {num_left_out:,} meet no rule" if recipe else f"classes: {classes}"


def _mirror_hints(task: Task) -> Iterator[str]:
    """Name classes that look like mirror images of each other and are not said to be."""
    paired = {name for pair in task.mirror_pairs for name in pair}
    by_words = {tuple(re.split(r"[\W_]+", name.casefold())): name for name in task.names if name not in paired}
    for words, name in by_words.items():
        for sense, other_sense in _MIRROR_WORDS:
            other = by_words.get(tuple(other_sense if word == sense else word for word in words))
            if other is not None and other != name:
                yield (
                    f"{name} and {other} look like mirror images: training flips images, so if they are, convert with "
                    f"--mirror-pairs {name}:{other}"
                )


def _check_votes(records: Sequence[Record]) -> tuple[str, ...]:
    """Insist on cumulative fractions; a few odd rows are left as they are, and counted in a note."""
    fractions = np.array([record.target for record in records], dtype=np.float64)
    errors = GZ2.sum_errors(fractions)
    errors[:, _FREE_QUESTION - 1] = 0.0
    is_wrong = np.abs(errors) > _SUM_TOLERANCE
    num_wrong = int(is_wrong.any(axis=1).sum())
    if not num_wrong:
        return ()
    row, index = (int(place) for place in np.argwhere(is_wrong)[0])
    question = GZ2.questions[index]
    expected = GZ2.parent_fractions(fractions[row : row + 1])[0, index]
    first = (
        f"id {records[row].id}: found fractions of question {question.number} ({question.name}) that add up to "
        f"{expected + errors[row, index]:.3f}, expected {expected:.3f}"
    )
    if num_wrong > _MAX_WRONG_SUMS * len(records):
        raise DataError(
            f"{first}; so in {num_wrong:,} of {len(records):,} galaxies: these look conditional, expected cumulative "
            "fractions as in the Kaggle columns: multiply each question's fractions by those of the answer above it"
        )
    return (f"{num_wrong:,} galaxies have vote fractions that miss the tree's sums, and are kept; {first}",)


def _check_ids(records: Sequence[Record]) -> None:
    places: dict[str, str] = {}
    for record in records:
        if record.id in places:
            raise DataError(
                f"id {record.id}: found twice, for {places[record.id]} and for {record.image.location}, expected each "
                "id once: rename or remove one"
            )
        try:
            record.id.encode()
        except UnicodeEncodeError:
            raise DataError(f"id {record.id!r}: found a name that is not UTF-8, expected text: rename it") from None
        places[record.id] = record.image.location


def _label(reader: Reader, records: Sequence[Record], settings: ConvertSettings) -> tuple[Task, list[Any], str | None]:
    """The task, each record's target (None = left out), and the recipe applied."""
    task = reader.task
    recipe = settings.recipe if settings.recipe is not None else reader.default_recipe
    if recipe == NO_RECIPE or (task.kind == "classes" and settings.recipe is None):
        recipe = None
    if recipe and task.kind == "classes":
        raise ConfigError(f"--recipe: got {recipe} for a survey that gives classes, expected vote fractions: omit it")
    targets: list[Any]
    if recipe:
        rules = RECIPES[recipe]
        task = Task(kind="classes", names=rules.class_names)
        fractions = np.array([record.target for record in records], dtype=np.float64)
        targets = [None if target == NO_CLASS else target for target in rules.apply(fractions).tolist()]
    elif task.kind == "classes":
        numbers = {name: number for number, name in enumerate(task.names)}
        targets = [numbers[str(record.target)] for record in records]
    else:
        targets = [record.target for record in records]
    if settings.mirror_pairs and task.kind == "votes":
        raise ConfigError("--mirror-pairs: got pairs for vote fractions, which no mirror changes: leave them out")
    return replace(task, mirror_pairs=settings.mirror_pairs), targets, recipe


def _assign_splits(records: Sequence[Record], settings: ConvertSettings) -> list[str]:
    """Keep the survey's own split; a val or test split that it lacks is taken from train by a hash of the id."""
    own = {record.split for record in records if record.split is not None}
    splits = []
    for record in records:
        split = record.split
        if split is None or split == "train":
            hashed = assign_split(record.id, val=settings.val, test=settings.test)
            split = "train" if hashed in own else hashed
        splits.append(split)
    return splits


def share_allows(num_rejected: int, num_galaxies: int, max_rejected: float) -> bool:
    """Whether this many rejected images of all stay within the allowed share."""
    return num_rejected <= math.floor(max_rejected * num_galaxies + 1e-9)
