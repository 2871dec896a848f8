"""Images to answer for: files, folders of them, catalogues that name them, and folders of shards."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galaxy_models.data.batches import iterate_batches
from galaxy_models.data.manifest import MANIFEST_NAME, SPLIT_NAMES
from galaxy_models.data.pipeline import load_images
from galaxy_models.data.readers.base import ImageError, ImageSource
from galaxy_models.data.readers.catalog import CatalogOptions, CatalogReader
from galaxy_models.data.readers.images import IMAGE_SUFFIXES, FileImage
from galaxy_models.errors import DataError
from galaxy_models.training.survey import SurveyData

CATALOG_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".pq"})
# Fewer images than this are not worth another process, which takes seconds to start.
_IMAGES_PER_WORKER = 100


@dataclass(frozen=True)
class FoundImages:
    """Images in files.

    Attributes:
        ids: their names.
        images: where they lie.
        note: what the user should be told; empty if nothing.
    """

    ids: list[str]
    images: list[ImageSource]
    note: str = ""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class FoundShards:
    """A converted survey, all of its splits."""

    survey: SurveyData

    def __len__(self) -> int:
        return sum(split.num_rows for split in self.survey.manifest.splits.values())


@dataclass
class Rows:
    """Some rows of a table of predictions.

    Attributes:
        ids: names.
        paths: where each image lies.
        reasons: why an image cannot be read; empty for those that can.
        pixels: (px, px, 3) uint8 of each image that can.
    """

    ids: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    pixels: list[Any] = field(default_factory=list)

    def images(self) -> Tensor:
        """(B, 3, px, px) uint8, channels_last; there is at least one."""
        return torch.from_numpy(np.stack(self.pixels)).permute(0, 3, 1, 2)


class _UnlabelledCatalog(CatalogReader):
    """A catalogue whose galaxies nobody has classified yet."""

    def _find_targets(self) -> tuple[list[str], None]:
        self._class_column, self._vote_columns = None, ()
        return [""] * len(self._paths), None


def find_images(place: Path, catalog: CatalogOptions) -> FoundImages | FoundShards:
    """Find the images that a path stands for; reads none of them but those of shards, to see that they are unaltered.

    Args:
        place: an image file, a folder (with all folders in it), a table with an image a row, or a folder of shards.
        catalog: which columns of a table say what.

    Raises:
        DataError: there is nothing there, or nothing that holds images.
        ShardError: a shard is missing or altered.
    """
    if (place / MANIFEST_NAME).is_file():
        survey = SurveyData(place)
        survey.manifest.verify(place)
        return FoundShards(survey)
    if place.is_dir():
        return _in_folder(place)
    if not place.exists():
        raise DataError(f"{place}: no such file or folder: check the path")
    suffix = place.suffix.lower()
    if suffix in CATALOG_SUFFIXES:
        return _in_catalog(place, catalog)
    if suffix not in IMAGE_SUFFIXES:
        raise DataError(
            f"{place}: found the suffix {suffix!r}, expected an image ({', '.join(sorted(IMAGE_SUFFIXES))}), "
            f"a catalogue ({', '.join(sorted(CATALOG_SUFFIXES))}) or a folder"
        )
    return FoundImages([place.stem], [FileImage("", str(place))])


def iterate_rows(
    found: Sequence[FoundImages | FoundShards], *, px: int, crop: float, num_workers: int, batch_size: int
) -> Iterator[Rows]:
    """Read all images, as a conversion would, and hand them on in order.

    Args:
        found: where they lie.
        px: side to shrink them to, in pixels; images of shards keep theirs.
        crop: share of each image's shorter side to keep; not of those in shards, which have been cropped.
        num_workers: processes that decode.
        batch_size: rows at a time.

    Yields:
        At most `batch_size` rows; their images are of one size.
    """
    for part in found:
        if isinstance(part, FoundShards):
            yield from _rows_of_shards(part.survey, batch_size)
        else:
            yield from _rows_of_files(part, px, crop, min(num_workers, -(-len(part) // _IMAGES_PER_WORKER)), batch_size)


def _in_folder(folder: Path) -> FoundImages:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    relative = [path.relative_to(folder) for path in paths]
    visible = [path for path in relative if not any(part.startswith(".") for part in path.parts)]
    if not visible:
        raise DataError(
            f"{folder}: found no image in it, expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}, "
            f"or shards with a {MANIFEST_NAME}: check the path"
        )
    return FoundImages(
        [path.with_suffix("").as_posix() for path in visible], [FileImage("", str(folder / path)) for path in visible]
    )


def _in_catalog(path: Path, options: CatalogOptions) -> FoundImages:
    reader = _UnlabelledCatalog(path, options)
    columns, root = reader.describe(), options.image_root or path.parent
    records = list(reader.records())
    return FoundImages(
        [record.id for record in records],
        [FileImage("", str(root / record.image.location)) for record in records],
        f"{path.name}: id from {columns['id_column'] or 'the image path'}, image {columns['image']}",
    )


def _rows_of_shards(survey: SurveyData, batch_size: int) -> Iterator[Rows]:
    for name in SPLIT_NAMES:
        if not survey.manifest.splits[name].num_rows:
            continue
        split = survey.split(name)
        ids = split.ids
        for batch in iterate_batches(split, np.arange(split.num_rows), batch_size=batch_size):
            size = len(batch.rows)
            yield Rows(
                ids=[ids[row] for row in batch.rows],
                paths=[str(survey.directory / name)] * size,
                reasons=[""] * size,
                # Used up before the batch after the next is asked for.
                pixels=list(batch.images.permute(0, 2, 3, 1).numpy()),
            )


def _rows_of_files(found: FoundImages, px: int, crop: float, num_workers: int, batch_size: int) -> Iterator[Rows]:
    rows = Rows()
    with closing(load_images(found.images, px=px, crop=crop, num_workers=num_workers)) as images:
        for index, image in images:
            rows.ids.append(found.ids[index])
            rows.paths.append(found.images[index].location)
            if isinstance(image, ImageError):
                rows.reasons.append(str(image))
            else:
                rows.reasons.append("")
                rows.pixels.append(image.pixels)
            if len(rows.ids) == batch_size:
                yield rows
                rows = Rows()
    if rows.ids:
        yield rows
