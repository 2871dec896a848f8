"""A catalogue in CSV or Parquet beside its images."""

import argparse
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from galaxy_models.data.readers.base import Reader, Record
from galaxy_models.data.readers.images import FileImage
from galaxy_models.data.readers.tables import Table, read_table
from galaxy_models.errors import DataError
from galaxy_models.task import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Names that surveys use, in lower case, the most telling first.
_ID_COLUMNS = (
    "objid",
    "dr7objid",
    "dr8objid",
    "galaxyid",
    "galaxy_id",
    "object_id",
    "objectid",
    "id_str",
    "iauname",
    "id",
    "name",
)
_IMAGE_COLUMNS = ("image", "image_path", "file_loc", "path", "filename", "file_name", "file")
_CLASS_COLUMNS = ("class_name", "class", "label", "morphology", "category")
_IMAGE_FOLDERS = ("images/", "", "image/", "cutouts/", "jpg/", "images_training_rev1/")
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif")
# Rows tried when looking where the images lie: some of them may be missing.
_ROWS_TRIED = 20


@dataclass(frozen=True)
class CatalogOptions:
    """Which columns of a catalogue say what; None = look for common names.

    Attributes:
        image_column: holds the path of each image.
        image_template: path of each image, with column names in braces, such as `images/{OBJID}.jpeg`.
        image_root: the folder that paths start from; None = the catalogue's own.
        id_column: names each galaxy.
        class_column: names each galaxy's class.
        vote_columns: the 37 vote fractions, in the order of the Galaxy Zoo 2 tree.
    """

    image_column: str | None = None
    image_template: str | None = None
    image_root: Path | None = None
    id_column: str | None = None
    class_column: str | None = None
    vote_columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for first, second in (("image_column", "image_template"), ("class_column", "vote_columns")):
            if getattr(self, first) and getattr(self, second):
                names = [f"--{name.replace('_', '-')}" for name in (first, second)]
                raise DataError(f"{names[0]} and {names[1]}: got both, expected one of them: leave one out")


class CatalogReader(Reader):
    """Galaxies listed in a table, with a class or vote fractions for each."""

    name = "catalog"
    summary = "a CSV or Parquet table with an image, and a class or vote fractions, for each galaxy"
    takes_recipe = True

    def __init__(self, path: Path, options: CatalogOptions) -> None:
        self._path = path
        self._options = options
        self._table = read_table(path)
        self._root = (options.image_root or path.parent).resolve()
        if not self._root.is_dir():
            raise DataError(f"--image-root: {self._root}: no such folder, expected the one that image paths start from")
        self._id_column = self._find_id_column()
        self._image, self._paths = self._find_images()
        self._ids = self._table.text(self._id_column) if self._id_column else self._ids_from_paths()
        self._table.require_unique(self._ids)
        self._classes, self._votes = self._find_targets()

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the table and the names of its columns."""
        parser.add_argument("source", metavar="SOURCE", type=Path, help="the table: a .csv, .tsv or .parquet file")
        parser.add_argument("--image-column", metavar="NAME", help="column with the path of each image")
        parser.add_argument(
            "--image-template", metavar="TEXT", help="path of each image from other columns: 'images/{OBJID}.jpeg'"
        )
        parser.add_argument("--image-root", metavar="DIR", type=Path, help="where paths start (default: the table's)")
        parser.add_argument("--id-column", metavar="NAME", help="column that names each galaxy")
        parser.add_argument("--class-column", metavar="NAME", help="column with each galaxy's class")
        parser.add_argument(
            "--vote-columns",
            metavar="A,B,...",
            type=lambda text: tuple(name.strip() for name in text.split(",")),
            help="the 37 vote-fraction columns in the order of the Galaxy Zoo 2 tree (default: Class1.1 to Class11.6)",
        )

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> "CatalogReader":
        """Open the catalogue; see the contract."""
        names = CatalogOptions.__dataclass_fields__
        return cls(options.source, CatalogOptions(**{name: getattr(options, name) for name in names}))

    @property
    def survey(self) -> str:
        """The name of the catalogue's folder."""
        return self._path.resolve().parent.name

    @property
    def task(self) -> Task:
        """The distinct classes by name, or the columns of the Galaxy Zoo 2 tree."""
        if self._classes is not None:
            names = tuple(sorted(set(self._classes)))
            if len(names) < 2:
                raise DataError(f"{self._table.name}: found the one class {names[0]!r}, expected at least two classes")
            return Task(kind="classes", names=names)
        from galaxy_models.morphology.tree import GZ2

        return Task(kind="votes", names=GZ2.columns)

    def records(self) -> Iterator[Record]:
        """Yield the galaxies in the order of the rows."""
        root = str(self._root)
        targets: Any = self._classes if self._classes is not None else self._votes
        for object_id, path, target in zip(self._ids, self._paths, targets, strict=True):
            yield Record(id=object_id, target=target, image=FileImage(root, path))

    def describe(self) -> dict[str, Any]:
        """The columns used."""
        return {
            "catalog": self._path.name,
            "image": self._image,
            "id_column": self._id_column,
            "class_column": self._class_column,
            "vote_columns": list(self._vote_columns),
        }

    @property
    def paths(self) -> Iterator[Path]:
        """The table and each image."""
        yield self._path.resolve()
        folders: dict[str, Path] = {}
        for path in self._paths:
            folder, name = os.path.split(path)
            if folder not in folders and "\0" not in folder:
                folders[folder] = Path(self._root, folder).resolve()
            if folder in folders:
                yield folders[folder] / name

    @property
    def notes(self) -> tuple[str, ...]:
        """Which columns are used, for those that the user did not name."""
        target = f"class from {self._class_column}" if self._class_column else "37 vote fractions"
        return (f"{self._table.name}: id from {self._id_column or 'the image path'}, image {self._image}, {target}",)

    def _find_id_column(self) -> str | None:
        if self._options.id_column:
            return self._table.require(self._options.id_column, "--id-column")
        return self._table.find(_ID_COLUMNS)

    def _find_images(self) -> tuple[str, list[str]]:
        """The column or template that gives the paths, and the path of each row."""
        table, options = self._table, self._options
        if options.image_template:
            return options.image_template, _fill_template(table, options.image_template)
        column = options.image_column or table.find(_IMAGE_COLUMNS)
        if column:
            return column, table.text(table.require(column, "--image-column"))
        if self._id_column:
            ids = table.text(self._id_column)[:_ROWS_TRIED]
            for folder in _IMAGE_FOLDERS:
                for ending in _IMAGE_ENDINGS:
                    if any((self._root / f"{folder}{object_id}{ending}").is_file() for object_id in ids):
                        template = f"{folder}{{{self._id_column}}}{ending}"
                        return template, _fill_template(table, template)
        raise DataError(
            f"{table.name}: found no column of image paths, and no images by id near {self._root}: name them with "
            "--image-column, or with --image-template and --id-column"
        )

    def _find_targets(self) -> "tuple[list[str] | None, NDArray[np.float64] | None]":
        """The class of each row, or else its vote fractions."""
        from galaxy_models.morphology.tree import GZ2

        table, options = self._table, self._options
        self._class_column: str | None = None
        self._vote_columns: tuple[str, ...] = ()
        class_column = options.class_column or (None if options.vote_columns else table.find(_CLASS_COLUMNS))
        has_votes = all(column in table.columns for column in GZ2.columns)
        if class_column and not options.class_column and has_votes:
            raise DataError(
                f"{table.name}: found classes in {class_column} and 37 vote fractions, expected to be told which: "
                f"give --class-column {class_column}, or --vote-columns"
            )
        if class_column:
            self._class_column = table.require(class_column, "--class-column")
            return table.classes(class_column), None
        if not options.vote_columns and not has_votes:
            raise DataError(
                f"{table.name}: found neither classes nor the 37 vote fractions among the columns "
                f"{', '.join(table.columns[:12])}: name them with --class-column or --vote-columns"
            )
        self._vote_columns = options.vote_columns or GZ2.columns
        if len(set(self._vote_columns)) != len(GZ2.columns) or len(self._vote_columns) != len(GZ2.columns):
            raise DataError(
                f"--vote-columns: got {len(self._vote_columns)} names, expected {len(GZ2.columns)} different ones, "
                f"for {GZ2.columns[0]} to {GZ2.columns[-1]} in order"
            )
        for column in self._vote_columns:
            table.require(column, "--vote-columns")
        return None, table.fractions(self._vote_columns, self._ids)

    def _ids_from_paths(self) -> list[str]:
        """Each image's path from the image root, without suffix, however the table spells it."""
        # The table may spell the root as the user does, or without its links.
        roots = (str(self._root), os.path.normpath(Path.cwd() / (self._options.image_root or self._path.parent)))
        ids = []
        for row, path in enumerate(self._paths, start=1):
            place = PurePosixPath(os.path.normpath(path))
            root = next((root for root in roots if place.is_relative_to(root)), None)
            if root:
                place = place.relative_to(root)
            if place.name in ("", ".."):
                raise DataError(
                    f"{self._table.name}: row {row}, image {self._image}: found {path!r}, expected the path of an "
                    "image file: correct it or remove the row"
                )
            ids.append(place.with_suffix("").as_posix())
        return ids


def _fill_template(table: Table, template: str) -> list[str]:
    names = re.findall(r"\{([^{}]+)\}", template)
    if not names:
        raise DataError(
            f"--image-template: got {template!r}, expected a column's name in braces: 'images/{{OBJID}}.jpg'"
        )
    columns = [table.text(table.require(name, "--image-template")) for name in names]
    constants = re.split(r"\{[^{}]+\}", template)
    return [
        constants[0] + "".join(value + constant for value, constant in zip(row, constants[1:], strict=True))
        for row in zip(*columns, strict=True)
    ]
