"""Converts a survey into shards: every readable galaxy once, in one split, with a manifest."""

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from galaxy_models.data.manifest import SCHEMA_VERSION, SPLIT_NAMES, Manifest, SplitEntry
from galaxy_models.data.pipeline import load_images
from galaxy_models.data.plan import ConvertSettings, Plan, PlannedGalaxy, check_coverage, plan_conversion, share_allows
from galaxy_models.data.progress import Progress
from galaxy_models.data.readers.base import LoadedImage, Reader
from galaxy_models.data.shards import ShardWriter
from galaxy_models.data.staging import REJECTED_NAME, check_apart, check_output, resolve_output, staged_folder
from galaxy_models.errors import DataError


@dataclass
class _Tally:
    """What became of the galaxies so far.

    Attributes:
        rejected: id, path and reason of each image that cannot be used.
        duplicates: id, path and reason of each image that another galaxy with the same target has already.
        written: split and target of each converted galaxy.
    """

    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str, str]] = field(default_factory=list)
    written: list[tuple[str, Any]] = field(default_factory=list)


def convert_survey(reader: Reader, settings: ConvertSettings, *, progress: Progress) -> Manifest:
    """Convert a survey into a folder of shards, which appears only when it is complete.

    Args:
        reader: the opened survey.
        settings: how to convert it.
        progress: told of what happens.

    Returns:
        The manifest, as written to `settings.out`.

    Raises:
        DataError: the output is in use, the labels cannot be used, or too many images cannot be used; the
            list of those is then kept beside the output; likewise where what is left cannot be trained on.
        ConfigError: an option that does not fit the survey.
    """
    out = resolve_output(settings.out)
    check_apart(out, reader.paths)
    check_output(out, force=settings.force)
    for note in reader.notes:
        progress.say(note)
    plan = plan_conversion(reader, settings)
    for note in plan.notes:
        progress.say(note)
    beside = out.with_name(f"{out.name}.{REJECTED_NAME}")
    with staged_folder(out, force=settings.force) as folder:
        writers = {name: ShardWriter(folder, name, px=settings.px, task=plan.task) for name in SPLIT_NAMES}
        tally = _write_galaxies(plan, settings, writers, progress)
        _check_rejected(tally, plan, settings, beside)
        counts = _count_written(tally, plan, beside)
        manifest = _make_manifest(reader, settings, plan, tally, _close(writers, counts, plan))
        _write_rejected(folder / REJECTED_NAME, tally)
        manifest.write(folder)
    beside.unlink(missing_ok=True)
    return manifest


def describe_result(manifest: Manifest, out: Path) -> str:
    """One line on a conversion: rows per split, left out, duplicates, rejected, where."""
    rows = ", ".join(f"{name} {manifest.splits[name].num_rows:,}" for name in SPLIT_NAMES)
    return (
        f"{rows}; left out {manifest.left_out:,}, duplicates {manifest.made_by['num_duplicates']:,}, "
        f"rejected {manifest.rejected:,}: {out}"
    )


def _write_galaxies(
    plan: Plan, settings: ConvertSettings, writers: dict[str, ShardWriter], progress: Progress
) -> _Tally:
    tally = _Tally()
    kept: dict[bytes, PlannedGalaxy] = {}
    sources = [galaxy.record.image for galaxy in plan.galaxies]
    images = load_images(sources, px=settings.px, crop=settings.crop, num_workers=settings.num_workers)
    with closing(images), progress.counting(len(sources)) as advance:
        for index, image in images:
            advance()
            galaxy = plan.galaxies[index]
            place = (galaxy.record.id, galaxy.record.image.location)
            if not isinstance(image, LoadedImage):
                tally.rejected.append((*place, str(image)))
                continue
            if image.digest is not None:
                first = kept.setdefault(image.digest, galaxy)
                if first is not galaxy:
                    _set_aside(tally, place, first, galaxy, plan)
                    continue
            writers[galaxy.split].add(galaxy.record.id, image.pixels, galaxy.target)
            tally.written.append((galaxy.split, galaxy.target))
    return tally


def _set_aside(tally: _Tally, place: tuple[str, str], first: PlannedGalaxy, galaxy: PlannedGalaxy, plan: Plan) -> None:
    """List a galaxy whose image another one has: contradicting labels are a fault, agreeing ones are not."""
    same = f"the same image as {first.record.id}"
    if np.array_equal(first.target, galaxy.target):
        tally.duplicates.append((*place, f"duplicate: {same}"))
    elif plan.task.kind == "classes":
        tally.rejected.append((*place, f"{same}, which is of class {plan.task.names[first.target]}"))
    else:
        tally.rejected.append((*place, f"{same}, which has other vote fractions"))


def _check_rejected(tally: _Tally, plan: Plan, settings: ConvertSettings, beside: Path) -> None:
    num_rejected, num_galaxies = len(tally.rejected), len(plan.galaxies)
    if share_allows(num_rejected, num_galaxies, settings.max_rejected):
        return
    _write_rejected(beside, tally)
    object_id, path, reason = tally.rejected[0]
    raise DataError(
        f"{num_rejected:,} of {num_galaxies:,} images cannot be used, the first {path} (id {object_id}: {reason}), "
        f"--max-rejected allows a share of {settings.max_rejected:g}: see {beside}, mend the images or allow more"
    )


def _count_written(tally: _Tally, plan: Plan, beside: Path) -> dict[str, Counter[int]]:
    """Count again what the plan counted, now without the galaxies that were set aside."""
    try:
        return check_coverage(plan.task, tally.written, remedy=plan.remedy)
    except DataError as error:
        _write_rejected(beside, tally)
        num_rejected, num_duplicates = len(tally.rejected), len(tally.duplicates)
        raise DataError(f"{error}; rejected {num_rejected:,}, duplicates {num_duplicates:,}: see {beside}") from None


def _close(writers: dict[str, ShardWriter], counts: dict[str, Counter[int]], plan: Plan) -> dict[str, SplitEntry]:
    num_classes = len(plan.task.names) if plan.task.kind == "classes" else 0
    return {
        name: SplitEntry(
            num_rows=counts[name].total(),
            shards=writer.close(),
            class_counts=tuple(counts[name][number] for number in range(num_classes)),
        )
        for name, writer in writers.items()
    }


def _make_manifest(
    reader: Reader, settings: ConvertSettings, plan: Plan, tally: _Tally, splits: dict[str, SplitEntry]
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        survey=settings.survey or reader.survey,
        simulated=reader.simulated,
        task=plan.task,
        px=settings.px,
        splits=splits,
        rejected=len(tally.rejected),
        left_out=plan.num_left_out,
        made_by={
            "version": version("galaxy-search"),
            "reader": reader.name,
            "options": reader.describe(),
            "recipe": plan.recipe,
            "crop": settings.crop,
            "val": settings.val,
            "test": settings.test,
            "num_duplicates": len(tally.duplicates),
        },
    )


def _write_rejected(path: Path, tally: _Tally) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "path", "reason"))
        writer.writerows(_listed(tally))


def _listed(tally: _Tally) -> Iterator[tuple[str, str, str]]:
    yield from tally.rejected
    yield from tally.duplicates
