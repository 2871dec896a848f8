"""Small surveys on disk for tests of conversion; every image differs from every other."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from galaxy_models.morphology.tree import GZ2


def noise_image(seed: int, *, width: int = 40, height: int = 40) -> Image.Image:
    """Smooth coloured noise, so that JPEG and resizing have something to work on."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_class_folders(root: Path, classes: dict[str, int], *, first_seed: int = 0) -> Path:
    """One folder a class with this many images."""
    seed = first_seed
    for name, count in classes.items():
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{name}_{number}.jpg").write_bytes(encode(noise_image(seed)))
            seed += 1
    return root


def tree_votes(count: int, *, seed: int = 0) -> np.ndarray:
    """(count, 37) cumulative fractions that obey the tree."""
    generator = np.random.default_rng(seed)
    conditional = np.empty((count, len(GZ2.columns)))
    for question in GZ2.questions:
        conditional[:, question.columns] = generator.dirichlet(np.ones(len(question.answers)) / 2, count)
    return GZ2.cumulative(conditional)


def votes_csv(ids: list[str], votes: np.ndarray, *, id_column: str = "GalaxyID") -> str:
    """The Galaxy Challenge's table."""
    lines = [",".join((id_column, *GZ2.columns))]
    lines += [",".join((name, *(repr(float(vote)) for vote in row))) for name, row in zip(ids, votes, strict=True)]
    return "\n".join(lines) + "\n"
