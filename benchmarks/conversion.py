"""How fast galaxies are decoded, cropped and shrunk on one core, and how close the result is to Pillow's.

`python benchmarks/conversion.py --data DIR` takes JPEGs from anywhere under DIR. The contenders take turns in rounds;
the ratio is the median over the rounds.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from galaxy_models.data.decode import decode_galaxy

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data" / "gz1"
GOAL = 1.4

Decode = Callable[[bytes], np.ndarray]


def pillow_galaxy(data: bytes, *, px: int, crop: float) -> np.ndarray:
    """The reference: Pillow's decoder, crop and antialiased bilinear resize."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = max(1, round(crop * min(image.size)))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((px, px), Image.Resampling.BILINEAR))


def rate(decode: Decode, images: list[bytes]) -> float:
    """Images per second of processor time, which other work on the machine disturbs least."""
    start = time.process_time()
    for data in images:
        decode(data)
    return len(images) / (time.process_time() - start)


def compare(images: list[bytes], *, px: int, crop: float, num_rounds: int) -> float:
    """Print the rates at one size, and return ours over Pillow's."""

    def ours(data: bytes) -> np.ndarray:
        return decode_galaxy(data, px=px, crop=crop)

    def pillows(data: bytes) -> np.ndarray:
        return pillow_galaxy(data, px=px, crop=crop)

    worst = max(int(np.abs(ours(data).astype(int) - pillows(data)).max()) for data in images)
    rounds = [(rate(ours, images), rate(pillows, images)) for _ in range(num_rounds)]
    our_rate, pillow_rate = (statistics.median(rates) for rates in zip(*rounds, strict=True))
    ratio = statistics.median(ours / pillows for ours, pillows in rounds)
    print(
        f"{px:>4} px, crop {crop:.2f}: {our_rate:6,.0f} images/s, Pillow {pillow_rate:6,.0f} images/s, "
        f"ratio {ratio:.2f}, largest difference {worst}"
    )
    return ratio


def main() -> None:
    """Compare at the sizes that surveys use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="a folder of JPEGs, at any depth")
    parser.add_argument("--num-images", type=int, default=200)
    parser.add_argument("--num-rounds", type=int, default=5)
    options = parser.parse_args()
    paths = sorted(path for path in options.data.rglob("*.jp*g"))[: options.num_images]
    images = [path.read_bytes() for path in paths]
    if not images:
        parser.error(f"--data {options.data}: found no JPEGs")
    torch.set_num_threads(1)
    ratios = [
        compare(images, px=px, crop=crop, num_rounds=options.num_rounds)
        for px, crop in ((64, 0.5), (128, 0.5), (128, 300 / 424), (224, 1.0))
    ]
    print(f"goal: {GOAL} times Pillow: {'met' if min(ratios) >= GOAL else 'MISSED'} (lowest {min(ratios):.2f})")


if __name__ == "__main__":
    main()
