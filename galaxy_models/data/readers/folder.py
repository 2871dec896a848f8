"""One folder a class; also with train, val and test folders above the classes."""

import argparse
import filecmp
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from galaxy_models.data.readers.base import Reader, Record
from galaxy_models.data.readers.images import IMAGE_SUFFIXES, FileImage
from galaxy_models.errors import DataError
from galaxy_models.task import Task

_SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Found beside images without anybody having put them there.
_IGNORED_FOLDERS = frozenset({"__MACOSX"})


class FolderReader(Reader):
    """Images in one folder a class."""

    name = "folder"
    summary = "one folder of images a class; a train/val/test split above the classes is kept"

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder, expected one with a folder of images a class: check the path")
        self._root = root.resolve()
        top = _subfolders(self._root)
        self._kept = self._has_splits(top)
        self._groups = self._split_folders(top) if self._kept else [(None, folder) for folder in top]
        if len({folder.name for _, folder in self._groups}) < 2:
            found = ", ".join(sorted({folder.name for _, folder in self._groups})) or "none"
            raise DataError(f"{root}: found the class folders {found}, expected at least two, each holding images")
        self._ignored = Counter(_suffix(path) for path in self._loose_files(top))
        self._images = [self._find_images(folder) for _, folder in self._groups]

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the folder."""
        parser.add_argument("source", metavar="SOURCE", type=Path, help="the folder that holds the class folders")

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> "FolderReader":
        """Open the folder; see the contract."""
        return cls(options.source)

    @property
    def survey(self) -> str:
        """The folder's name."""
        return self._root.name

    @property
    def task(self) -> Task:
        """The class folders, by name."""
        return Task(kind="classes", names=tuple(sorted({folder.name for _, folder in self._groups})))

    def records(self) -> Iterator[Record]:
        """Yield the images of each split and class, by name."""
        for (split, folder), paths in zip(self._groups, self._images, strict=True):
            for path in paths:
                relative = path.relative_to(self._root)
                yield Record(
                    id=relative.with_suffix("").as_posix(),
                    target=folder.name,
                    image=FileImage(str(self._root), relative.as_posix()),
                    split=split,
                )

    def describe(self) -> dict[str, Any]:
        """Whether the folders' own split was kept, and how many file names several of its folders have."""
        return {"kept_split": self._kept, "num_repeated_names": self._num_repeated_names}

    @property
    def paths(self) -> tuple[Path, ...]:
        """The folder."""
        return (self._root,)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which splits the folders lack, names in several of them, and files passed over."""
        notes = []
        if self._kept:
            present = {split for split, _ in self._groups}
            absent = [split for split in ("val", "test") if split not in present]
            notes.append(
                f"there is no {' and no '.join(absent)} folder: taken from train by a hash of the id"
                if absent
                else "the folders' own train, val and test split is kept"
            )
        if self._num_repeated_names:
            notes.append(
                f"{self._num_repeated_names:,} file names occur in more than one split folder; they are taken as "
                "different galaxies: if each names one galaxy, list them in a table with an id and convert with "
                "catalog, which puts no id in two splits"
            )
        if self._ignored:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self._ignored.items()))
            notes.append(f"ignored {self._ignored.total():,} files: {kinds}")
        return tuple(notes)

    def _has_splits(self, top: list[Path]) -> bool:
        named = [folder.name for folder in top if folder.name.lower() in _SPLIT_FOLDERS]
        others = [folder.name for folder in top if folder.name not in named]
        if named and others:
            raise DataError(
                f"{self._root}: found the folder {others[0]!r} beside {', '.join(map(repr, named))}, expected splits "
                "(such as train, val and test) or classes, not both: move it away, or rename a class of such a name"
            )
        if named and "train" not in (_SPLIT_FOLDERS[name.lower()] for name in named):
            raise DataError(
                f"{self._root}: found {', '.join(map(repr, named))} and no train folder, expected one to train on: "
                "add it, or rename a class of such a name"
            )
        return bool(named)

    def _split_folders(self, top: list[Path]) -> list[tuple[str | None, Path]]:
        groups: dict[str, list[tuple[str | None, Path]]] = {}
        for folder in top:
            split = _SPLIT_FOLDERS[folder.name.lower()]
            if split in groups:
                raise DataError(f"{self._root}: found two folders for the {split} split, expected one: merge them")
            groups[split] = [(split, item) for item in _subfolders(folder)]
        return [group for split in ("train", "val", "test") for group in groups.get(split, [])]

    def _loose_files(self, top: list[Path]) -> Iterator[Path]:
        """Files in the root or in a split folder, where they have no class."""
        for folder in (self._root, *(top if self._kept else ())):
            yield from (item for item in folder.iterdir() if not item.name.startswith(".") and not item.is_dir())

    def _find_images(self, folder: Path) -> list[Path]:
        """The images of a class; other files are counted as ignored."""
        images = []
        for path in _files(folder, (self._root, folder.resolve())):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                images.append(path)
            else:
                self._ignored[_suffix(path)] += 1
        if not images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(
                f"class folder {folder.relative_to(self._root)}: found no image, expected files that end in "
                f"{suffixes}: fill the folder or remove it"
            )
        return images

    @cached_property
    def _num_repeated_names(self) -> int:
        """File names in several splits with different bytes: the same bytes are found out as duplicates."""
        places: dict[str, dict[str | None, Path]] = {}
        for (split, _), paths in zip(self._groups, self._images, strict=True):
            for path in paths:
                places.setdefault(path.name, {}).setdefault(split, path)
        return sum(_differ(list(paths.values())) for paths in places.values())


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        item
        for item in folder.iterdir()
        if item.is_dir()
        and not item.name.startswith(".")
        and item.name not in _IGNORED_FOLDERS
        and not (item.is_symlink() and folder.resolve().is_relative_to(item.resolve()))
    )


def _files(folder: Path, way: tuple[Path, ...]) -> Iterator[Path]:
    """Files at any depth, in order; dangling links count, so that they are rejected and not overlooked.

    Args:
        folder: where to look.
        way: the resolved folders that led here; a link back to one of them, or to what holds it, is not followed.
    """
    for item in sorted(folder.iterdir()):
        if item.name.startswith(".") or item.name in _IGNORED_FOLDERS:
            continue
        if not item.is_dir():
            yield item
            continue
        real = item.resolve() if item.is_symlink() else way[-1] / item.name
        if not any(passed.is_relative_to(real) for passed in way):
            yield from _files(item, (*way, real))


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if not suffix:
        return "without a suffix"
    return f"{suffix} outside the class folders" if suffix in IMAGE_SUFFIXES else suffix


def _differ(paths: list[Path]) -> bool:
    try:
        return any(not filecmp.cmp(paths[0], path, shallow=False) for path in paths[1:])
    except OSError:
        return False  # one of them cannot be read, and will be rejected
