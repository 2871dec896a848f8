"""Augmentation, against numpy's own turns, closed-form images and chi-square bounds."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from galaxy_models.config import AugmentConfig
from galaxy_models.data.augment import (
    apply_symmetries,
    draw_symmetries,
    draw_variations,
    place_images,
    prepare,
    resample,
    vary,
)

OFF = AugmentConfig(symmetries=False)
EVERYTHING = AugmentConfig(rotation_deg=180, shift=0.1, zoom=1.3, brightness=0.2, noise=0.05)
MIRROR_ORDER = (0, 2, 1)

# The eight symmetries of the square as numpy has them: (quarter turns counter-clockwise, mirrored first).
TURNS = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]


def turned(image: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """An (H, W, 3) image turned by numpy."""
    return np.rot90(np.fliplr(image) if mirrored else image, turns)


def to_batch(images: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 as the shards' batches come: (B, 3, H, W) in channels_last."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def to_arrays(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def pinwheel(px: int = 16) -> np.ndarray:
    """A one-armed hook with a blob, which none of the eight symmetries leaves as it is."""
    image = np.zeros((px, px, 3), np.uint8)
    image[2, 4:12] = (250, 120, 10)
    image[2:9, 4] = (20, 200, 90)
    image[12, 10] = (90, 30, 240)
    return image


def run(images, targets, config, *, seed=0, image_px=None, mirror_order=MIRROR_ORDER):
    px = image_px or images.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    variations = draw_variations([len(images)], config=config, image_px=px, generator=generator)
    return vary(images, targets, variations, image_px=px, mirror_order=mirror_order)


def which_turn(image: np.ndarray, original: np.ndarray, tolerance: float = 1e-6) -> tuple[int, bool]:
    fits = [turn for turn in TURNS if np.abs(image - turned(original, *turn) / 255).max() < tolerance]
    assert len(fits) == 1, fits
    return fits[0]


@pytest.mark.parametrize("config", [EVERYTHING, AugmentConfig(noise=0.05), OFF], ids=["all", "noise", "off"])
def test_a_part_of_a_batch_is_varied_as_in_the_whole(config):
    images = torch.randint(256, (11, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(11) % 3
    pixels, labels = run(images, targets, config)
    generator = torch.Generator().manual_seed(0)
    variations = draw_variations([11], config=config, image_px=16, generator=generator)
    for part in (slice(0, 5), slice(5, 11)):
        own = vary(images[part], targets[part], variations.of(part), image_px=16, mirror_order=MIRROR_ORDER)
        torch.testing.assert_close(own[0], pixels[part], rtol=0, atol=0)
        assert torch.equal(own[1], labels[part])


def test_the_pattern_shows_its_handedness():
    images = [turned(pinwheel(), *turn).tobytes() for turn in TURNS]
    assert len(set(images)) == 8


def test_the_eight_symmetries_are_numpys():
    original = pinwheel()
    images = apply_symmetries(to_batch(np.stack([original] * 8)), list(range(8)))
    found = [which_turn(image / 255, original) for image in to_arrays(images)]
    assert sorted(found) == sorted(TURNS)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_symmetries_in_any_order_are_applied_to_their_own_image():
    generator = np.random.default_rng(0)
    originals = generator.integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    symmetries = generator.integers(0, 8, 40).tolist()
    together = to_arrays(apply_symmetries(to_batch(originals), symmetries))
    for image, original, symmetry in zip(together, originals, symmetries, strict=True):
        alone = to_arrays(apply_symmetries(to_batch(original[None]), [symmetry]))[0]
        np.testing.assert_array_equal(image, alone)
        np.testing.assert_array_equal(np.sort(image.reshape(-1, 3), 0), np.sort(original.reshape(-1, 3), 0))


@pytest.mark.parametrize("affine", [False, True], ids=["by slices", "with the resampling"])
def test_a_mirror_exchanges_the_labels_and_a_turn_does_not(affine):
    original = pinwheel()
    # The smallest shift there is switches the resampling on and moves nothing that can be seen.
    config = AugmentConfig(shift=1e-7 if affine else 0.0)
    targets = torch.arange(300) % 3
    images, answers = run(to_batch(np.stack([original] * 300)), targets, config)
    seen = set()
    for image, before, after in zip(to_arrays(images), targets.tolist(), answers.tolist(), strict=True):
        turns, mirrored = which_turn(image, original, tolerance=1e-3)
        assert after == (MIRROR_ORDER[before] if mirrored else before)
        seen.add((turns, mirrored, before))
    assert len(seen) == 24
    assert targets.tolist() == [row % 3 for row in range(300)]


def test_a_mirror_exchanges_vote_columns_and_a_turn_does_not():
    original = pinwheel()
    votes = torch.rand(100, 3, generator=torch.Generator().manual_seed(1))
    images, answers = run(to_batch(np.stack([original] * 100)), votes, AugmentConfig())
    mirrors = 0
    for image, before, after in zip(to_arrays(images), votes, answers, strict=True):
        _, mirrored = which_turn(image, original)
        expected = [before[0], before[2], before[1]] if mirrored else before.tolist()
        assert after.tolist() == [float(value) for value in expected]
        mirrors += mirrored
    assert 20 < mirrors < 80


@pytest.mark.parametrize("config", [OFF, AugmentConfig(symmetries=False, rotation_deg=180, shift=0.2, zoom=2)])
def test_without_symmetries_labels_stay(config):
    targets = torch.arange(60) % 3
    _, answers = run(to_batch(np.stack([pinwheel()] * 60)), targets, config)
    assert torch.equal(answers, targets)


@pytest.mark.parametrize("mirror_order", [None, (0, 1, 2)])
def test_without_mirror_pairs_labels_stay(mirror_order):
    targets = torch.arange(60) % 3
    _, answers = run(to_batch(np.stack([pinwheel()] * 60)), targets, AugmentConfig(), mirror_order=mirror_order)
    assert torch.equal(answers, targets)


def test_every_place_in_a_batch_gets_each_symmetry_equally_often():
    """Chi-square with 7 degrees of freedom is below 29.9 in 99.99 % of cases; three places and the whole batch."""
    generator = torch.Generator().manual_seed(2)
    draws = np.array(draw_symmetries([16] * 2000, generator)).reshape(2000, 16)
    for place in (0, 7, 15):
        counts = np.bincount(draws[:, place], minlength=8)
        assert ((counts - 250) ** 2 / 250).sum() < 29.9
    # Over a whole batch the counts are those of independent draws: no symmetry is owed a share.
    counts = np.bincount(draws.reshape(-1), minlength=8)
    assert ((counts - 4000) ** 2 / 4000).sum() < 29.9
    per_batch = (draws == 3).sum(1)
    assert abs(per_batch.var() - 16 * 1 / 8 * 7 / 8) < 0.2


def test_equal_symmetries_lie_side_by_side():
    draws = draw_symmetries([64, 1, 63], torch.Generator().manual_seed(0))
    for batch in (draws[:64], draws[64:65], draws[65:]):
        changes = sum(a != b for a, b in pairwise(batch))
        assert changes == len(set(batch)) - 1


def affine(image: np.ndarray, *, angle=0.0, zoom=1.0, shift=(0.0, 0.0), symmetry=0, image_px=None) -> np.ndarray:
    """One (H, W, 3) float image through the resampling."""
    places = place_images(
        [symmetry], angles_deg=torch.tensor([angle]), zooms=torch.tensor([zoom]), shifts=torch.tensor([shift])
    )
    images = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).permute(2, 0, 1)[None]
    result = resample(images, places, image_px=image_px or image.shape[0])
    return to_arrays(result)[0]


@pytest.mark.parametrize("px", [16, 15])
@pytest.mark.parametrize(("angle", "turns"), [(0, 0), (90, 1), (180, 2), (-180, 2), (-90, 3), (270, 3)])
def test_a_quarter_turn_is_numpys(px, angle, turns):
    image = np.random.default_rng(0).random((px, px, 3))
    # Positions carry float32's error, 1e-7 of the side times px, and neighbours differ by up to 1.
    np.testing.assert_allclose(affine(image, angle=float(angle)), np.rot90(image, turns), atol=2e-5)


def test_symmetries_in_the_resampling_are_those_of_the_slices():
    images = np.random.default_rng(0).random((8, 9, 9, 3))
    exact = to_arrays(apply_symmetries(to_batch(images), list(range(8))))
    for symmetry in range(8):
        np.testing.assert_allclose(affine(images[symmetry], symmetry=symmetry), exact[symmetry], atol=2e-5)


def test_a_symmetry_comes_before_the_rotation_zoom_and_shift():
    images = np.random.default_rng(0).random((8, 16, 16, 3))
    exact = to_arrays(apply_symmetries(to_batch(images), list(range(8))))
    for symmetry in range(8):
        change = {"angle": 30.0, "zoom": 1.4, "shift": (0.1, -0.2)}
        expected = affine(exact[symmetry], **change)
        np.testing.assert_allclose(affine(images[symmetry], symmetry=symmetry, **change), expected, atol=2e-5)


def blob(px: int, x: float, y: float, sigma: float) -> np.ndarray:
    """A round Gaussian centred x to the right and y down of the image's centre, in pixels."""
    places = np.arange(px) - (px - 1) / 2
    values = np.exp(-((places - x) ** 2 + (places[:, None] - y) ** 2) / (2 * sigma**2))
    return np.repeat(values[:, :, None], 3, 2)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shift": (0.125, -0.0625)}, (64, 8 + 8, 4 - 4, 5)),
        ({"zoom": 2.0}, (64, 16, 8, 10)),
        ({"zoom": 0.5}, (64, 4, 2, 2.5)),
        # Counter-clockwise by 30 degrees with y down: x' = x cos + y sin, y' = -x sin + y cos.
        ({"angle": 30.0}, (64, 8 * 0.8660254 + 4 * 0.5, -8 * 0.5 + 4 * 0.8660254, 5)),
        # Rotated, then zoomed, then shifted by 6.4 pixels.
        ({"angle": 90.0, "zoom": 1.5, "shift": (0.1, 0.0)}, (64, 4 * 1.5 + 6.4, -8 * 1.5, 7.5)),
        ({"image_px": 128}, (128, 16, 8, 10)),
    ],
    ids=["shift", "zoom in", "zoom out", "rotation", "all", "enlarged"],
)
def test_a_blob_lands_where_it_should(change, expected):
    # Linear interpolation errs by at most h^2/8 of the second derivative, 2/sigma^2 along both axes: 1 % at sigma 5.
    np.testing.assert_allclose(affine(blob(64, 8, 4, 5), **change), blob(*expected), atol=0.011)


def test_draws_stay_within_the_configuration_and_fill_it():
    """The blob's centre and size tell each image's shift, zoom and angle."""
    px, num = 64, 400
    original = (blob(px, 16, 0, 2.5) * 255).round().astype(np.uint8)
    batch = to_batch(np.stack([original] * num))
    targets = torch.zeros(num, dtype=torch.int64)

    def centres(config):
        images = to_arrays(run(batch, targets, config)[0])[..., 0].astype(float)
        places = np.arange(px) - (px - 1) / 2
        total = images.sum((1, 2))
        return np.stack([(images.sum(1) @ places) / total, (images.sum(2) @ places) / total], -1), total

    centre, _ = centres(AugmentConfig(symmetries=False, shift=0.1))
    moved = centre - (16, 0)
    assert np.abs(moved).max() < 6.4 + 0.05
    assert (np.ptp(moved, axis=0) > 12).all()
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.2
    centre, _ = centres(AugmentConfig(symmetries=False, rotation_deg=40))
    angles = np.degrees(np.arctan2(-centre[:, 1], centre[:, 0]))
    assert -40.5 < angles.min() < -38
    assert 38 < angles.max() < 40.5
    centre, _ = centres(AugmentConfig(symmetries=False, zoom=1.5))
    zooms = np.log(centre[:, 0] / 16) / np.log(1.5)
    assert -1.03 < zooms.min() < -0.97
    assert 0.97 < zooms.max() < 1.03
    # Log-uniform: as many shrink as grow, within four standard deviations of a binomial of 400.
    assert abs((zooms > 0).sum() - 200) < 40
    _, total = centres(AugmentConfig(symmetries=False, brightness=0.3))
    factors = total / (original[..., 0].sum() / 255)
    assert 0.699 < factors.min() < 0.71


def test_beyond_the_edges_the_sky_goes_on():
    """A sky of one level stays that level in the corners that a rotation or a shift opens: no black wedges."""
    sky = to_batch(np.full((50, 32, 32, 3), 40, np.uint8))
    config = AugmentConfig(rotation_deg=180, shift=0.25, zoom=2)
    images, _ = run(sky, torch.zeros(50, dtype=torch.int64), config)
    np.testing.assert_allclose(images, 40 / 255, atol=1e-6)


def test_beyond_an_edge_its_pixels_are_repeated():
    image = np.random.default_rng(0).random((16, 16, 3))
    expected = np.pad(image, ((0, 0), (4, 0), (0, 0)), mode="edge")[:, :16]
    np.testing.assert_allclose(affine(image, shift=(0.25, 0.0)), expected, atol=2e-5)


def test_brightness_is_one_factor_for_an_image_and_never_leaves_the_range():
    images = to_batch(np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8))
    config = AugmentConfig(symmetries=False, brightness=0.5)
    bright = to_arrays(run(images, torch.zeros(200, dtype=torch.int64), config)[0])
    plain = to_arrays(images) / 255
    assert bright.max() == 1
    factors = []
    for before, after in zip(plain, bright, strict=True):
        shown = (before > 0) & (after < 1)
        ratio = after[shown] / before[shown]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
        factors.append(ratio[0])
    assert 0.5 <= min(factors) < 0.53
    assert 1.47 < max(factors) <= 1.5


def test_noise_is_white_and_gaussian_in_every_image():
    num, px, scale = 40, 48, 0.05
    images = to_batch(np.full((num, px, px, 3), 128, np.uint8))
    config = AugmentConfig(symmetries=False, noise=scale)
    noise = to_arrays(run(images, torch.zeros(num, dtype=torch.int64), config)[0]).astype(float) - 128 / 255
    values = noise[0].size
    noise /= scale
    # Five standard deviations of a mean, a variance, a fourth moment and a correlation of 6,912 numbers.
    assert np.abs(noise.mean((1, 2, 3))).max() < 5 / values**0.5
    assert np.abs(noise.var((1, 2, 3)) - 1).max() < 5 * (2 / values) ** 0.5
    assert np.abs((noise**4).mean((1, 2, 3)) - 3).max() < 5 * (96 / values) ** 0.5
    for shifted in (np.roll(noise, 1, 1), np.roll(noise, 1, 2), np.roll(noise, 1, 3)):
        assert np.abs((noise * shifted).mean((1, 2, 3))).max() < 5 / values**0.5
    # No two images of the batch carry the same noise.
    between = np.corrcoef(noise.reshape(num, -1)) - np.eye(num)
    assert np.abs(between).max() < 5.5 / values**0.5


def test_strong_noise_and_brightness_stay_in_range():
    images = to_batch(np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8))
    config = AugmentConfig(brightness=0.9, noise=0.5)
    result, _ = run(images, torch.zeros(20, dtype=torch.int64), config)
    assert (float(result.min()), float(result.max())) == (0, 1)


@pytest.mark.parametrize("image_px", [8, 16, 24])
@pytest.mark.parametrize("config", [OFF, AugmentConfig(), EVERYTHING], ids=["off", "symmetries", "everything"])
def test_the_same_generator_gives_the_same_bits(config, image_px):
    before = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    images, targets = to_batch(before.copy()), torch.arange(12) % 3
    torch.manual_seed(0)
    first, first_answers = run(images, targets, config, image_px=image_px)
    torch.manual_seed(1)
    again, again_answers = run(images, targets, config, image_px=image_px)
    assert torch.equal(first, again)
    assert torch.equal(first_answers, again_answers)
    other, _ = run(images, targets, config, image_px=image_px, seed=1)
    assert torch.equal(first, other) == (config is OFF)
    assert first.dtype == torch.float32
    assert first.shape == (12, 3, image_px, image_px)
    layout = torch.contiguous_format if config is EVERYTHING else torch.channels_last
    assert first.is_contiguous(memory_format=layout)
    assert 0 <= first.min() <= first.max() <= 1
    # The stored images lie in a buffer of the loader's: they are read only.
    np.testing.assert_array_equal(to_arrays(images), before)


def test_a_draw_never_touches_the_global_generator():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    run(to_batch(np.stack([pinwheel()] * 4)), torch.zeros(4, dtype=torch.int64), EVERYTHING)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("image_px", [16, 11, 32])
def test_switched_off_it_is_what_evaluation_sees(image_px):
    images = to_batch(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8))
    result, _ = run(images, torch.zeros(5, dtype=torch.int64), OFF, image_px=image_px)
    torch.testing.assert_close(result, prepare(images, image_px=image_px), rtol=1e-6, atol=0)


@pytest.mark.parametrize("image_px", [16, 23, 31, 48])
def test_prepare_resizes_as_pillow_does(image_px):
    """Pillow's BILINEAR is antialiased; both round to 8 bits, so they may differ by one level."""
    originals = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    result = prepare(to_batch(originals), image_px=image_px)
    size = (image_px, image_px)
    expected = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)) for image in originals]
    np.testing.assert_allclose(to_arrays(result) * 255, np.stack(expected), atol=1.001)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_prepare_keeps_every_level():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    result = prepare(to_batch(image), image_px=16)
    np.testing.assert_array_equal(to_arrays(result), (image / np.float32(255)).astype(np.float32))
