"""`python -m galaxy_models.data.convert`: make shards of a survey, once, for every search to read."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from galaxy_models.cli import run_command
from galaxy_models.data.interruption import end_by_signals
from galaxy_models.data.readers import READERS, Reader, find_reader

_EPILOG = """\
examples:
  python -m galaxy_models.data.convert folder ~/my-survey --out shards/my-survey
  python -m galaxy_models.data.convert catalog gz1/labels.csv --out shards/gz1 --mirror-pairs spiral_cw:spiral_acw
  python -m galaxy_models.data.convert kaggle ~/galaxy-zoo --out shards/kaggle --recipe five_class
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line, with a subcommand for each reader."""
    parser = argparse.ArgumentParser(
        prog="python -m galaxy_models.data.convert",
        description="Decode, crop and shrink a survey's images into shards, and split them by a hash of the id.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    readers = parser.add_subparsers(dest="reader", metavar="READER", required=True)
    for name in READERS:
        reader = find_reader(name)
        subparser = readers.add_parser(name, help=reader.summary, description=f"Convert {reader.summary}.")
        reader.add_options(subparser)
        _add_common_options(subparser, reader)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one survey.

    Args:
        arguments: the command line; None = that of this process.

    Returns:
        The exit code.
    """
    options = build_parser().parse_args(arguments)
    return run_command(lambda: _convert(options))


def _add_common_options(parser: argparse.ArgumentParser, reader: type[Reader]) -> None:
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of shards to make")
    parser.add_argument("--px", metavar="N", type=int, default=128, help="side of the images (default: 128)")
    parser.add_argument(
        "--crop",
        metavar="SHARE",
        type=float,
        default=reader.default_crop,
        help=f"share of each image's shorter side to keep, about its centre (default: {reader.default_crop:g})",
    )
    parser.add_argument("--val", metavar="SHARE", type=float, default=0.1, help="share for validation (default: 0.1)")
    parser.add_argument("--test", metavar="SHARE", type=float, default=0.1, help="share for testing (default: 0.1)")
    parser.add_argument("--workers", metavar="N", type=int, help="processes (default: one per processor)")
    parser.add_argument(
        "--max-rejected", metavar="SHARE", type=float, default=0.01, help="unreadable images allowed (default: 0.01)"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier conversion, once this one is complete")
    parser.add_argument("--survey", metavar="NAME", help="the survey's name (default: that of its folder)")
    parser.add_argument(
        "--mirror-pairs",
        metavar="A:B[,C:D]",
        type=_parse_pairs,
        default=(),
        help="classes that a mirror image exchanges, such as spiral_cw:spiral_acw",
    )
    if reader.takes_recipe:
        default = reader.default_recipe or "none"
        parser.add_argument(
            "--recipe",
            metavar="NAME",
            help=f"classes from vote fractions: five_class, five_class_conditional or none (default: {default})",
        )
    else:
        parser.set_defaults(recipe=None)


def _parse_pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [tuple(name.strip() for name in pair.split(":")) for pair in text.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected pairs of classes such as left:right,upper:lower")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _convert(options: argparse.Namespace) -> int:
    from galaxy_models.data.conversion import convert_survey, describe_result
    from galaxy_models.data.plan import ConvertSettings
    from galaxy_models.data.progress import Progress

    settings = ConvertSettings(
        out=options.out,
        px=options.px,
        crop=options.crop,
        val=options.val,
        test=options.test,
        num_workers=options.workers if options.workers is not None else os.cpu_count() or 1,
        max_rejected=options.max_rejected,
        force=options.force,
        survey=options.survey,
        mirror_pairs=options.mirror_pairs,
        recipe=options.recipe,
    )
    manifest = convert_survey(find_reader(options.reader).from_options(options), settings, progress=Progress())
    print(describe_result(manifest, options.out))
    return 0


if __name__ == "__main__":
    end_by_signals()
    sys.exit(main())
