"""The Galaxy Challenge on Kaggle, in the competition's own layout, unpacked or as it was downloaded.

Source:
    https://www.kaggle.com/c/galaxy-zoo-the-galaxy-challenge/data
"""

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from galaxy_models.data.readers.base import ImageSource, Reader, Record
from galaxy_models.data.readers.images import IMAGE_SUFFIXES, FileImage, ZipImage
from galaxy_models.data.readers.tables import Table, parse_csv, read_table
from galaxy_models.errors import DataError
from galaxy_models.task import Task

_IMAGES = "images_training_rev1"
_SOLUTIONS = "training_solutions_rev1"
_ID_COLUMN = "GalaxyID"


class KaggleReader(Reader):
    """The training galaxies of the Galaxy Challenge, with the 37 vote fractions of each."""

    name = "kaggle"
    summary = f"the Galaxy Challenge's {_IMAGES} and {_SOLUTIONS}.csv, as folders or as the original zips"
    takes_recipe = True

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder, expected one with {_IMAGES} and {_SOLUTIONS}: check the path")
        self._root = root.resolve()
        from galaxy_models.morphology.tree import GZ2

        self._columns: tuple[str, ...] = GZ2.columns
        table = self._read_solutions()
        for column in (_ID_COLUMN, *self._columns):
            table.require(column, "the Galaxy Challenge's solutions")
        self._ids = table.text(_ID_COLUMN)
        table.require_unique(self._ids)
        self._votes = table.fractions(self._columns, self._ids)
        self._members = self._list_archive()

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the folder."""
        parser.add_argument("source", metavar="SOURCE", type=Path, help=f"the folder with {_IMAGES} and {_SOLUTIONS}")

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> "KaggleReader":
        """Open the folder; see the contract."""
        return cls(options.source)

    @property
    def survey(self) -> str:
        """The folder's name."""
        return self._root.name

    @property
    def task(self) -> Task:
        """The 37 vote fractions."""
        return Task(kind="votes", names=self._columns)

    def records(self) -> Iterator[Record]:
        """Yield the galaxies in the order of the solutions."""
        for object_id, votes in zip(self._ids, self._votes, strict=True):
            yield Record(id=object_id, target=votes, image=self._image(object_id))

    def describe(self) -> dict[str, Any]:
        """Whether the images came from the archive."""
        return {"zipped": self._members is not None}

    @property
    def paths(self) -> tuple[Path, ...]:
        """The folder."""
        return (self._root,)

    @property
    def notes(self) -> tuple[str, ...]:
        """How many images have no votes."""
        members = self._members
        names = (item.name for item in (self._root / _IMAGES).iterdir()) if members is None else members
        images = {name for name in map(PurePosixPath, names) if _is_image(name)}
        num_without = len({image.stem for image in images} - set(self._ids))
        return (f"ignored {num_without:,} images that {_SOLUTIONS} has no row for",) if num_without else ()

    def _image(self, object_id: str) -> ImageSource:
        if self._members is None:
            return FileImage(str(self._root), f"{_IMAGES}/{object_id}.jpg")
        name = f"{object_id}.jpg"
        return ZipImage(str(self._root / f"{_IMAGES}.zip"), self._members.get(name, f"{_IMAGES}/{name}"))

    def _read_solutions(self) -> Table:
        plain, archive = self._root / f"{_SOLUTIONS}.csv", self._root / f"{_SOLUTIONS}.zip"
        if plain.is_file() or not archive.is_file():
            return read_table(plain)
        with _open_archive(archive) as file:
            members = [name for name in file.namelist() if PurePosixPath(name).name == plain.name]
            if not members:
                raise DataError(f"{archive}: found no {plain.name} in it: download it again")
            try:
                return parse_csv(plain.name, file.read(members[0]))
            except zipfile.BadZipFile as error:
                raise DataError(f"{archive}: found a damaged archive ({error}): download it again") from None

    def _list_archive(self) -> dict[str, str] | None:
        """File name -> member of the archive of images; None where they lie in a folder."""
        archive = self._root / f"{_IMAGES}.zip"
        if (self._root / _IMAGES).is_dir():
            return None
        if not archive.is_file():
            raise DataError(f"{self._root}: found neither {_IMAGES}/ nor {_IMAGES}.zip, expected one: check the path")
        with _open_archive(archive) as file:
            members = [PurePosixPath(name) for name in file.namelist() if not name.endswith("/")]
        return {member.name: str(member) for member in members if member.parts[0] != "__MACOSX"}


def _is_image(name: PurePosixPath) -> bool:
    return name.suffix.lower() in IMAGE_SUFFIXES and not name.name.startswith(".")


def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: found no readable zip archive ({error}): download it again") from None
