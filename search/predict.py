"""Answer for new images: `python -m search.predict CHECKPOINT IMAGES... --out predictions.parquet`."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from galaxy_models.cli import run_command
from galaxy_models.data.plan import ConvertSettings
from galaxy_models.data.progress import Progress
from galaxy_models.data.readers.catalog import CatalogOptions
from galaxy_models.errors import DataError
from galaxy_models.inference.machine import add_machine_options, make_runtime
from galaxy_models.inference.place import check_new
from search.options import positive_int

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_models.inference.ensemble import Ensemble
    from galaxy_models.inference.images import FoundImages, FoundShards

DEFAULT_CROP = ConvertSettings.crop
# A larger share of unreadable images is no accident.
_MAX_UNREADABLE = 0.5

_EPILOG = """\
examples:
  python -m search.predict weights.safetensors cutouts/ --out predictions.parquet
  python -m search.predict runs/gz1/final/resnet50 survey.csv --image-template '{OBJID}.png' --out p.parquet --tta

Columns: id, path; reason, why an image cannot be read; predicted; entropy, in nats (of vote fractions: that of the
first question's answers); p_<class> or p_<vote fraction>; with several networks their mean, and network_sd_..., the
standard deviation over them; with --tta symmetry_sd_..., that over the eight symmetries.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _predict(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.predict",
        description="Answer for new images with a trained network, or with several whose answers are averaged.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="weights, or a folder: all weights below it together")
    add(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGES",
        help="image files, folders with images in them, catalogues (.csv, .tsv, .parquet), or folders of shards",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="the table to write, a .parquet")
    add("--checkpoint", type=Path, action="append", default=[], metavar="MORE", dest="more", help="another network")
    add("--tta", action="store_true", help="average over the eight symmetries, which takes eight times as long")
    add(
        "--crop",
        type=float,
        metavar="SHARE",
        help=f"share of each image's shorter side to keep (default: as in training; {DEFAULT_CROP:g} if unknown)",
    )
    add("--batch-size", type=positive_int, default=64, metavar="N", help="images at a time (default: 64)")
    add("--workers", type=positive_int, metavar="N", help="processes that decode images (default: one per processor)")
    add_machine_options(parser)
    catalog = parser.add_argument_group("columns of a catalogue, as in galaxy_models.data.convert").add_argument
    catalog("--id-column", metavar="NAME", help="names each galaxy")
    catalog("--image-column", metavar="NAME", help="path of each image")
    catalog("--image-template", metavar="TEXT", help="path of each image from other columns: 'images/{OBJID}.jpeg'")
    catalog("--image-root", type=Path, metavar="DIR", help="where paths start (default: the catalogue's folder)")
    return parser


def _predict(options: argparse.Namespace) -> int:
    _check(options)

    from galaxy_models.inference.ensemble import Ensemble
    from galaxy_models.inference.images import FoundShards, find_images
    from galaxy_models.inference.network import find_weights

    columns = CatalogOptions(
        image_column=options.image_column,
        image_template=options.image_template,
        image_root=options.image_root,
        id_column=options.id_column,
    )
    found = [find_images(place, columns) for place in options.images]
    paths = [path for place in (options.checkpoint, *options.more) for path in find_weights(place)]
    ensemble = Ensemble(paths, make_runtime(options.device, options.threads))
    say = Progress().say
    for note in (getattr(part, "note", "") for part in found):
        if note:
            say(note)
    crop = _choose_crop(options.crop, ensemble)
    if any(not isinstance(part, FoundShards) for part in found):
        say(f"the central {crop[0]:g} of each image's side is kept ({crop[1]}), shrunk to {ensemble.stored_px} px")
    return _run(options, ensemble, found, crop[0])


def _choose_crop(asked: float | None, ensemble: "Ensemble") -> tuple[float, str]:
    """The share of each image to keep, and why it is this."""
    if asked is not None:
        return asked, "as given"
    if ensemble.crop is not None:
        return ensemble.crop, "as in training"
    return DEFAULT_CROP, "the conversion's default, since the weights do not say: give --crop if theirs was another"


def _check(options: argparse.Namespace) -> None:
    check_new(options.out)
    if options.out.suffix != ".parquet":
        raise DataError(f"--out {options.out}: got the suffix {options.out.suffix!r}, expected .parquet")
    if options.crop is not None and not 0 < options.crop <= 1:
        raise DataError(f"--crop: got {options.crop:g}, expected a share above 0, up to 1")


def _run(
    options: argparse.Namespace, ensemble: "Ensemble", found: "Sequence[FoundImages | FoundShards]", crop: float
) -> int:
    from galaxy_models.inference.images import iterate_rows
    from galaxy_models.inference.table import prediction_table

    num_images, num_unreadable = sum(map(len, found)), 0
    several = len(ensemble.networks) > 1
    workers = options.workers if options.workers is not None else os.cpu_count() or 1
    start = time.monotonic()
    with (
        prediction_table(options.out, ensemble.task, several=several, averaged=options.tta) as table,
        Progress().counting(num_images) as advance,
    ):
        rows_of_all = iterate_rows(
            found, px=ensemble.stored_px, crop=crop, num_workers=workers, batch_size=options.batch_size
        )
        for rows in rows_of_all:
            table.add(rows, ensemble.answer(rows.images(), average=options.tta) if rows.pixels else None)
            num_unreadable += len(rows.ids) - len(rows.pixels)
            for _ in rows.ids:
                advance()
    seconds = time.monotonic() - start
    print(
        f"{num_images:,} images in {seconds:.1f} s ({num_images / seconds:,.0f} a second), "
        f"{num_unreadable:,} of them unreadable{' (see the column reason)' if num_unreadable else ''}: {options.out}"
    )
    if num_unreadable > _MAX_UNREADABLE * num_images:
        raise DataError(
            f"{num_unreadable:,} of {num_images:,} images cannot be read, expected at most {_MAX_UNREADABLE:.0%}: "
            f"the column reason of {options.out} says why"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
