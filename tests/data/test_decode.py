"""Decoding against Pillow, and every way a file can be no galaxy."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from survey_files import encode, noise_image

from galaxy_models.data.decode import decode_galaxy
from galaxy_models.data.readers.base import ImageError


def pillow_galaxy(data: bytes, *, px: int, crop: float) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = max(1, round(crop * min(image.size)))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((px, px), Image.Resampling.BILINEAR))


def max_difference(left: np.ndarray, right: np.ndarray) -> int:
    return int(np.abs(left.astype(int) - right.astype(int)).max())


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    px=st.integers(16, 64),
    crop=st.floats(0.05, 1.0),
    kind=st.sampled_from(["JPEG", "PNG"]),
)
def test_pixels_are_pillows(width: int, height: int, px: int, crop: float, kind: str) -> None:
    data = encode(noise_image(width * 100 + height, width=width, height=height), kind)
    pixels = decode_galaxy(data, px=px, crop=crop)
    assert pixels.shape == (px, px, 3)
    assert pixels.dtype == np.uint8
    # Both round after each of the two passes, so that colours which jump from pixel to pixel may differ by 2.
    assert max_difference(pixels, pillow_galaxy(data, px=px, crop=crop)) <= 2


def test_real_galaxies_are_within_one_of_pillows(real_data: Path) -> None:
    for path in sorted((real_data / "gz1" / "images").iterdir())[::250]:
        for px in (64, 128):
            pixels = decode_galaxy(path.read_bytes(), px=px, crop=0.5)
            assert max_difference(pixels, pillow_galaxy(path.read_bytes(), px=px, crop=0.5)) <= 1


def test_shrinking_a_fine_pattern_leaves_its_mean_and_no_moire() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode_galaxy(encode(Image.fromarray(stripes), "PNG"), px=32, crop=1.0)
    assert np.abs(pixels[:, 1:-1].astype(int) - 127.5).max() <= 8


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        *((mode, "PNG") for mode in ("L", "LA", "RGBA", "P", "1")),
        ("P", "GIF"),
        ("RGB", "WEBP"),
    ],
)
def test_every_colour_layout_becomes_rgb(mode: str, kind: str) -> None:
    data = encode(noise_image(3).convert(mode), kind)
    assert max_difference(decode_galaxy(data, px=32, crop=0.8), pillow_galaxy(data, px=32, crop=0.8)) <= 1


def test_sixteen_bits_are_scaled_to_eight() -> None:
    deep = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    pixels = decode_galaxy(encode(Image.fromarray(deep), "PNG"), px=32, crop=1.0)
    assert max_difference(pixels[:, :, 1], np.round(deep / 257)) <= 1


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [noise_image(seed).convert("P") for seed in (1, 2)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert max_difference(decode_galaxy(data, px=32, crop=1.0), pillow_galaxy(data, px=32, crop=1.0)) <= 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_a_jpeg_cut_anywhere_is_rejected(options: dict[str, object]) -> None:
    data = encode(noise_image(5, width=60, height=60), "JPEG", **options)
    for length in range(1, len(data)):
        with pytest.raises(ImageError, match=r"cut short|no image|not a JPEG|damaged"):
            decode_galaxy(data[:length], px=32, crop=0.5)


def test_a_real_jpeg_cut_anywhere_is_rejected(real_data: Path) -> None:
    path = sorted((real_data / "gz1" / "images").iterdir())[0]
    data = path.read_bytes()
    for length in [*range(100, len(data), 97), len(data) - 2, len(data) - 1]:
        with pytest.raises(ImageError, match="cut short"):
            decode_galaxy(data[:length], px=32, crop=0.5)
    assert decode_galaxy(data, px=32, crop=0.5).shape == (32, 32, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_other_images_cut_short_are_rejected(kind: str) -> None:
    data = encode(noise_image(6).convert("P") if kind == "GIF" else noise_image(6), kind)
    for length in range(20, len(data) - 20, 37):
        with pytest.raises(ImageError, match=r"cut short|damaged"):
            decode_galaxy(data[:length], px=32, crop=1.0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "^empty file$"), (b"a table, not a galaxy", "not a JPEG, PNG, WebP or GIF image: begins with b'a table,'")],
)
def test_what_is_no_image_is_rejected_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_galaxy(data, px=32, crop=1.0)


def test_formats_we_do_not_read_are_rejected() -> None:
    with pytest.raises(ImageError, match="not a JPEG, PNG, WebP or GIF image"):
        decode_galaxy(encode(noise_image(7), "TIFF"), px=32, crop=1.0)
