"""Converts a survey into shards: every readable galaxy once, in one split, with a manifest."""

import csv
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from galaxy_models.data.manifest import SCHEMA_VERSION, SPLIT_NAMES, Manifest, SplitEntry
from galaxy_models.data.pipeline import load_images
from galaxy_models.data.plan import ConvertSettings, Plan, check_coverage, plan_conversion, share_allows
from galaxy_models.data.progress import Progress
from galaxy_models.data.readers.base import LoadedImage, Reader
from galaxy_models.data.shards import ShardWriter
from galaxy_models.data.staging import check_output, staged_folder
from galaxy_models.errors import DataError

REJECTED_NAME = "rejected.csv"


@dataclass
class _Tally:
    """What became of the galaxies so far.

    Attributes:
        rejected: id, path and reason of each unreadable image.
        duplicates: id, path and reason of each image that an earlier galaxy has already.
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
        DataError: the output is in use, the labels cannot be used, or too many images cannot be read; the
            list of those is then kept beside the output.
        ConfigError: an option that does not fit the survey.
    """
    # The output itself may be a link to a roomier disk.
    out = settings.out.resolve()
    check_output(out, force=settings.force)
    for note in reader.notes:
        progress.say(note)
    plan = plan_conversion(reader, settings)
    if plan.recipe:
        progress.say(f"recipe {plan.recipe}: {_count_classes(plan)}; {plan.num_left_out:,} meet no rule")
    beside = out.with_name(f"{out.name}.{REJECTED_NAME}")
    with staged_folder(out, force=settings.force) as folder:
        writers = {name: ShardWriter(folder, name, px=settings.px, task=plan.task) for name in SPLIT_NAMES}
        tally = _write_galaxies(plan, settings, writers, progress)
        _check_rejected(tally, plan, settings, beside)
        manifest = _make_manifest(reader, settings, plan, tally, writers)
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
    first_ids: dict[bytes, str] = {}
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
                first_id = first_ids.setdefault(image.digest, galaxy.record.id)
                if first_id != galaxy.record.id:
                    tally.duplicates.append((*place, f"duplicate: the same image as {first_id}"))
                    continue
            writers[galaxy.split].add(galaxy.record.id, image.pixels, galaxy.target)
            tally.written.append((galaxy.split, galaxy.target))
    return tally


def _check_rejected(tally: _Tally, plan: Plan, settings: ConvertSettings, beside: Path) -> None:
    num_rejected, num_galaxies = len(tally.rejected), len(plan.galaxies)
    if share_allows(num_rejected, num_galaxies, settings.max_rejected):
        return
    _write_rejected(beside, tally)
    object_id, path, reason = tally.rejected[0]
    raise DataError(
        f"{num_rejected:,} of {num_galaxies:,} images cannot be read, the first {path} (id {object_id}: {reason}), "
        f"--max-rejected allows a share of {settings.max_rejected:g}: see {beside}, mend the images or allow more"
    )


def _make_manifest(
    reader: Reader, settings: ConvertSettings, plan: Plan, tally: _Tally, writers: dict[str, ShardWriter]
) -> Manifest:
    counts = check_coverage(plan.task, tally.written)
    num_classes = len(plan.task.names) if plan.task.kind == "classes" else 0
    return Manifest(
        schema_version=SCHEMA_VERSION,
        survey=settings.survey or reader.survey,
        simulated=reader.simulated,
        task=plan.task,
        px=settings.px,
        splits={
            name: SplitEntry(
                num_rows=counts[name].total(),
                shards=writer.close(),
                class_counts=tuple(counts[name][number] for number in range(num_classes)),
            )
            for name, writer in writers.items()
        },
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


def _count_classes(plan: Plan) -> str:
    targets = [galaxy.target for galaxy in plan.galaxies]
    return ", ".join(f"{name} {targets.count(number):,}" for number, name in enumerate(plan.task.names))


def _write_rejected(path: Path, tally: _Tally) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "path", "reason"))
        writer.writerows(_listed(tally))


def _listed(tally: _Tally) -> Iterator[tuple[str, str, str]]:
    yield from tally.rejected
    yield from tally.duplicates
