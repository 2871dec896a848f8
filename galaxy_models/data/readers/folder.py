"""One folder a class; also with train, val and test folders above the classes."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from galaxy_models.data.readers.base import Reader, Record
from galaxy_models.data.readers.images import IMAGE_SUFFIXES, FileImage
from galaxy_models.errors import DataError
from galaxy_models.task import Task

_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
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
        splits = {folder.name: _SPLIT_FOLDERS.get(folder.name.lower()) for folder in top}
        self._kept = bool(top) and "train" in splits.values() and None not in splits.values()
        if self._kept:
            self._groups = self._split_folders(top)
        else:
            self._groups = [(None, folder) for folder in top]
        if len({folder.name for _, folder in self._groups}) < 2:
            found = ", ".join(sorted({folder.name for _, folder in self._groups})) or "none"
            raise DataError(f"{root}: found the class folders {found}, expected at least two, each holding images")
        self._check_no_class_is_empty()

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
        for split, folder in self._groups:
            for path in _images(folder):
                relative = path.relative_to(self._root)
                yield Record(
                    id=relative.with_suffix("").as_posix(),
                    target=folder.name,
                    image=FileImage(str(self._root), relative.as_posix()),
                    split=split,
                )

    def describe(self) -> dict[str, Any]:
        """Whether the folders' own split was kept."""
        return {"kept_split": self._kept}

    @property
    def notes(self) -> tuple[str, ...]:
        """Which splits the folders lack."""
        if not self._kept:
            return ()
        present = {split for split, _ in self._groups}
        absent = [split for split in ("val", "test") if split not in present]
        if not absent:
            return ("the folders' own train, val and test split is kept",)
        return (f"there is no {' and no '.join(absent)} folder: taken from train by a hash of the id",)

    def _split_folders(self, top: list[Path]) -> list[tuple[str | None, Path]]:
        groups: dict[str, list[tuple[str | None, Path]]] = {}
        for folder in top:
            split = _SPLIT_FOLDERS[folder.name.lower()]
            if split in groups:
                raise DataError(f"{self._root}: found two folders for the {split} split, expected one: merge them")
            groups[split] = [(split, item) for item in _subfolders(folder)]
        return [group for split in ("train", "val", "test") for group in groups.get(split, [])]

    def _check_no_class_is_empty(self) -> None:
        for _, folder in self._groups:
            if next(_images(folder), None) is None:
                suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
                raise DataError(
                    f"class folder {folder.relative_to(self._root)}: found no image, expected files that end in "
                    f"{suffixes}: fill the folder or remove it"
                )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        item
        for item in folder.iterdir()
        if item.is_dir() and not item.name.startswith(".") and item.name not in _IGNORED_FOLDERS
    )


def _images(folder: Path) -> Iterator[Path]:
    """Image files at any depth, in order; dangling links count, so that they are rejected and not overlooked."""
    for item in sorted(folder.iterdir()):
        if item.name.startswith(".") or item.name in _IGNORED_FOLDERS:
            continue
        if item.is_dir():
            yield from _images(item)
        elif item.suffix.lower() in IMAGE_SUFFIXES:
            yield item
