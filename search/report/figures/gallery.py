"""Pictures of galaxies that a backbone takes for something else, from the shards if they are there."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from galaxy_models.errors import GalaxyError
from search.report.blocks import Gallery, Thumbnail, percent
from search.report.evidence.classes import Mistakes, main_mistakes
from search.report.findings import Findings

NUM_PAIRS = 6
NUM_GALAXIES = 4
# Side of a picture, in pixels; the page stays small, and larger images are shrunk by whole factors.
MAX_PX = 96

Images = dict[str, NDArray[np.uint8]]


def mistakes(findings: Findings) -> Gallery | str:
    """The main confusions of the leading backbone with galaxies of each; or why there are no pictures."""
    leader = next((one for one in findings.standings.values() if one.answers), None)
    if leader is None:
        return "There are no answers to show mistakes from."
    found = main_mistakes(leader, num_pairs=NUM_PAIRS, num_galaxies=NUM_GALAXIES)
    if not found:
        return f"The mean of {leader.backbone}'s seeds makes no mistake on the test galaxies."
    try:
        images = test_images(findings, [name for one in found for name, _ in one.galaxies])
    except GalaxyError as error:
        return f"No pictures of mistakes: {error}."
    names = findings.info.task.names
    rows = tuple((_heading(one, names), _thumbnails(one, place, images)) for place, one in enumerate(found))
    return Gallery(
        f"{leader.backbone}: the most frequent mistakes, with the test galaxies on which it is surest and wrong",
        rows,
        "Below each: probability of the wrong answer, mean over seeds, and the galaxy's id.",
    )


def test_images(findings: Findings, ids: list[str]) -> Images:
    """Images of test galaxies by id, as stored, from the folder that the search read.

    Raises:
        GalaxyError: the folder cannot be reached, or holds another survey.
    """
    from galaxy_models.data.manifest import Manifest
    from galaxy_models.data.shards import Split

    folder = Path(findings.info.data)
    manifest = Manifest.load(folder)
    if manifest.digest != findings.info.survey_digest:
        raise GalaxyError(
            f"{folder}: holds a survey of digest {manifest.digest[:19]}…, the search used "
            f"{findings.info.survey_digest[:19]}…"
        )
    split = Split.open(folder, manifest, "test")
    places = {name: row for row, name in enumerate(split.ids)}
    rows = np.array([places[name] for name in ids if name in places], dtype=np.int64)
    pixels = np.empty((len(rows), split.px, split.px, 3), dtype=np.uint8)
    split.gather(rows, pixels)
    return dict(zip((name for name in ids if name in places), pixels, strict=True))


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of an image, shrunk to at most `MAX_PX`."""
    from PIL import Image

    image = Image.fromarray(pixels)
    factor = -(-pixels.shape[0] // MAX_PX)
    buffer = io.BytesIO()
    (image.reduce(factor) if factor > 1 else image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _heading(one: Mistakes, names: tuple[str, ...]) -> str:
    number = f"{one.count:.1f}".removesuffix(".0")
    noun = "galaxy" if number == "1" else "galaxies"
    return f"{names[one.true]} taken for {names[one.given]} ({number} {noun})"


def _thumbnails(one: Mistakes, place: int, images: Images) -> tuple[Thumbnail, ...]:
    return tuple(
        Thumbnail(f"mistake-{place}-{index}", encoded(images[name]), f"{percent(probability)}, {name}")
        for index, (name, probability) in enumerate(one.galaxies)
        if name in images
    )
