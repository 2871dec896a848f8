"""Training images varied, a batch at a time: symmetries, rotation, shift, zoom, brightness and noise.

A galaxy has no preferred orientation on the sky, so all of these leave its morphology as it was, with one exception:
a mirror image exchanges the two senses of a spiral, and with them their labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from galaxy_models.config import AugmentConfig

# The eight symmetries of the square, numbered by bits: transpose first (4), then reverse the columns (2) and the
# rows (1). An odd number of these mirrors the image; an even number turns it.
NUM_SYMMETRIES = 8
_MIRRORS = torch.tensor([False, True, True, False, True, False, False, True])

# Gaussian numbers drawn for the noise of an epoch: half a megabyte, and at least so many images' worth.
_NOISE_VALUES = 2**17
_NOISE_IMAGES = 4

# Values worked on at a time on a CPU, 1.2 MB: fewer make more calls, more leave the caches between the steps.
_CHUNK_VALUES = 300_000


def prepare(images: Tensor, *, image_px: int) -> Tensor:
    """Bring stored images to the size and range that a network sees, unvaried.

    Args:
        images: (B, 3, H, W) uint8, channels_last.
        image_px: side of the result, in pixels; shrinking is antialiased.

    Returns:
        (B, 3, image_px, image_px) float32 in [0, 1], channels_last.
    """
    return _resize(images, image_px).to(torch.float32).div_(255)


@dataclass(frozen=True)
class Variations:
    """All that is drawn to vary images, such as those of an epoch.

    Attributes:
        config: what to vary, and by how much.
        symmetries: N numbers from 0 to 7.
        mirrored: (N,) bool, which of them mirror.
        gains: (N, 1, 1, 1) float32, by which stored levels are multiplied.
        places: (N, 3) complex64, for `resample`; None if nothing calls for a resampling.
        pool: Gaussian numbers that the images' noise is read from; None without noise.
        starts: N places in the pool where the images begin to read; empty without noise.
    """

    config: AugmentConfig
    symmetries: list[int]
    mirrored: Tensor
    gains: Tensor
    places: Tensor | None
    pool: Tensor | None
    starts: list[int]

    def of(self, part: slice) -> "Variations":
        """Those of a part of the images."""
        return replace(
            self,
            symmetries=self.symmetries[part],
            mirrored=self.mirrored[part],
            gains=self.gains[part],
            places=None if self.places is None else self.places[part],
            starts=self.starts[part],
        )

    def to(self, device: torch.device) -> "Variations":
        """The same on another device."""
        return replace(
            self,
            mirrored=self.mirrored.to(device),
            gains=self.gains.to(device),
            places=None if self.places is None else self.places.to(device),
            pool=None if self.pool is None else self.pool.to(device),
        )


def draw_variations(
    lengths: Sequence[int], *, config: AugmentConfig, image_px: int, generator: torch.Generator
) -> Variations:
    """Draw how the images of an epoch are varied.

    Args:
        lengths: of the batches, in which equal symmetries lie side by side.
        config: what to vary, and by how much.
        image_px: side of the varied images, in pixels.
        generator: source of every draw; may lie on another device than the images.
    """
    device, num_images = generator.device, sum(lengths)
    # Of angle, zoom, shift to the right, shift down and brightness.
    signed = 2 * torch.rand(num_images, 5, generator=generator, device=device) - 1
    symmetries = draw_symmetries(lengths, generator) if config.symmetries else [0] * num_images
    mirrored = _MIRRORS[symmetries].to(device)
    gains = (1 + config.brightness * signed[:, 4, None, None, None]) / 255
    places = _places(signed, symmetries, config)
    if config.noise == 0:
        return Variations(config, symmetries, mirrored, gains, places, None, [])
    # Gaussian numbers are dear, so some are drawn once and every image reads them from another place.
    num_values = 3 * image_px**2
    size = max(_NOISE_VALUES, _NOISE_IMAGES * num_values)
    pool = torch.randn(size, generator=generator, device=device).mul_(config.noise)
    starts = torch.randint(size - num_values + 1, (num_images,), generator=generator, device=device)
    return Variations(config, symmetries, mirrored, gains, places, pool, starts.tolist())


def vary(
    images: Tensor,
    targets: Tensor,
    variations: Variations,
    *,
    image_px: int,
    mirror_order: tuple[int, ...] | None,
) -> tuple[Tensor, Tensor]:
    """Vary a batch of training images, or a part of one, as it was drawn; what is off costs nothing.

    Each image is resized, turned by one of the eight symmetries, rotated, zoomed and shifted, brightened, and given
    noise, in this order. Rotation, zoom and shift are one bilinear resampling; beyond an edge its nearest sky is
    repeated.

    Args:
        images: (B, 3, px, px) uint8, channels_last, in random order: neighbours may share a symmetry.
        targets: (B,) int64 class indices, or (B, A) float32 vote fractions.
        variations: of these images, on their device.
        image_px: side of the result, in pixels.
        mirror_order: for each class or column the one that takes its place in a mirror image, or None.

    Returns:
        (B, 3, image_px, image_px) float32 in [0, 1], and the targets of those images. Images that were resampled are
        contiguous, as the resampling leaves them; others are in channels_last. Networks take both alike.
    """
    config, symmetries, places = variations.config, variations.symmetries, variations.places
    if places is None:
        images = apply_symmetries(_resize(images, image_px), symmetries)
    shape = (len(images), 3, image_px, image_px)
    layout = torch.channels_last if places is None else torch.contiguous_format
    pixels = torch.empty(shape, device=images.device, memory_format=layout)
    for part in _chunks(pixels):
        values = pixels[part]
        if places is None:
            values.copy_(images[part]).mul_(variations.gains[part])
        else:
            # Enlarging is left to the one resampling; shrinking needs the antialiased one first.
            own = _resize(images[part], min(image_px, images.shape[-1]))
            # From planes it samples a quarter faster than from interleaved colours, to the same bits.
            planes = own.to(torch.float32, memory_format=torch.contiguous_format)
            resampled = resample(planes, places[part], image_px=image_px)
            torch.mul(resampled, variations.gains[part], out=values)
        if variations.pool is not None:
            _add_noise(values, variations.pool, variations.starts[part])
        if variations.pool is not None or config.brightness > 0:
            values.clamp_(0, 1)
    return pixels, _mirror_targets(targets, variations.mirrored, mirror_order)


def draw_symmetries(lengths: Sequence[int], generator: torch.Generator) -> list[int]:
    """Draw one of the eight symmetries for each image, with equals side by side within each batch.

    The numbers are independent and uniform, then grouped, with the groups in random order: each image gets each
    symmetry with chance 1/8. Side by side they are applied as eight slices; since the images of a batch come in
    random order, which of them share a symmetry is random too.

    Args:
        lengths: of the batches.
        generator: source of the draws.

    Returns:
        The numbers of the symmetries, 0 (identity) to 7, of all batches in turn.
    """
    device = generator.device
    batches = torch.arange(len(lengths), device=device).repeat_interleave(torch.tensor(lengths, device=device))
    numbers = torch.randint(NUM_SYMMETRIES, (sum(lengths),), generator=generator, device=device)
    order = torch.rand(len(lengths), NUM_SYMMETRIES, generator=generator, device=device).argsort(dim=1)
    grouped = (batches * NUM_SYMMETRIES + numbers).sort().values
    return order.flatten()[grouped].tolist()


def apply_symmetries(images: Tensor, symmetries: list[int]) -> Tensor:
    """Turn or mirror each image exactly, pixel for pixel.

    Args:
        images: (B, 3, px, px), any type.
        symmetries: B numbers from 0 to 7; runs of equal numbers are applied at once.

    Returns:
        A new tensor like `images`, or `images` itself if there is nothing to do.
    """
    if not any(symmetries):
        return images
    turned = torch.empty_like(images)
    start = 0
    for number, run in groupby(symmetries):
        part = slice(start, start + len(list(run)))
        source = images[part].transpose(2, 3) if number & 4 else images[part]
        reverse = [dim for dim, bit in ((2, 1), (3, 2)) if number & bit]
        turned[part] = source.flip(reverse) if reverse else source
        start = part.stop
    return turned


def place_images(symmetries: list[int], *, angles_deg: Tensor, zooms: Tensor, shifts: Tensor) -> Tensor:
    """Say where each image is to be sampled so that it is turned, rotated, zoomed and shifted, in this order.

    Args:
        symmetries: B numbers from 0 to 7.
        angles_deg: (B,) float32, counter-clockwise, in degrees, about the centre.
        zooms: (B,) float32, the factor by which the galaxy grows.
        shifts: (B, 2) float32, to the right and down, as a fraction of the side.

    Returns:
        (B, 3) complex64, for `resample`: x + iy of the input, whose side runs from -1 to 1, that the output's right
        and lower edge add to the third, which its centre shows.
    """
    # Output p shows the input at S R^-1 (p - t) / zoom.
    angles = torch.deg2rad(angles_deg)
    cos, sin = torch.cos(angles) / zooms, torch.sin(angles) / zooms
    rotate = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    turns = torch.tensor([_turn_matrix(number) for number in range(NUM_SYMMETRIES)], device=zooms.device)
    matrix = turns[symmetries] @ rotate
    centre = -matrix @ (2 * shifts)[:, :, None]
    return torch.complex(*torch.cat([matrix, centre], dim=2).unbind(1))


def resample(images: Tensor, places: Tensor, *, image_px: int) -> Tensor:
    """Sample each image at its place, by bilinear interpolation.

    Args:
        images: (B, 3, H, H) float32.
        places: (B, 3) complex64, from `place_images`.
        image_px: side of the result, in pixels.

    Returns:
        (B, 3, image_px, image_px) float32, contiguous; beyond an edge its nearest pixel is repeated.
    """
    # Positions as complex numbers: the sum over rows and columns is then a single pass over the grid.
    steps = (torch.arange(image_px, device=images.device) * 2 + 1) / image_px - 1
    columns = places[:, 0, None, None] * steps
    rows = places[:, 1, None, None] * steps[:, None] + places[:, 2, None, None]
    grid = torch.view_as_real(columns + rows)
    # Reflection at the edges would look better, but shows the galaxy again beside itself as soon as it is zoomed out.
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _places(signed: Tensor, symmetries: list[int], config: AugmentConfig) -> Tensor | None:
    """Places for `resample` from (B, 5) draws in [-1, 1), or None if nothing calls for a resampling."""
    if config.rotation_deg == 0 and config.shift == 0 and config.zoom == 1:
        return None
    return place_images(
        symmetries,
        angles_deg=config.rotation_deg * signed[:, 0],
        zooms=config.zoom ** signed[:, 1],
        shifts=config.shift * signed[:, 2:4],
    )


def _turn_matrix(number: int) -> list[list[float]]:
    """Where a turned image finds its input: `(x, y)` of the output to `(x, y)` of the input."""
    x = [-1.0 if number & 2 else 1.0, 0.0]
    y = [0.0, -1.0 if number & 1 else 1.0]
    return [y, x] if number & 4 else [x, y]


def _resize(images: Tensor, image_px: int) -> Tensor:
    if images.shape[-1] == image_px:
        return images
    size = (image_px, image_px)
    if images.device.type == "cpu":
        # In bytes this is ten times faster than in float32, and rounds to the nearest of 256 levels.
        return functional.interpolate(images, size=size, mode="bilinear", antialias=True)
    return functional.interpolate(images.to(torch.float32), size=size, mode="bilinear", antialias=True)


def _add_noise(values: Tensor, pool: Tensor, starts: Sequence[int]) -> None:
    """Add Gaussian noise to images in place: white within each, which reads the pool from a place of its own."""
    # White noise has no layout of its own: it takes that of the values, which lie dense.
    size, stride = values.shape[1:], values.stride()[1:]
    torch._foreach_add_(values.unbind(), [pool.as_strided(size, stride, start) for start in starts])


def _chunks(pixels: Tensor) -> list[slice]:
    """Parts of a batch whose values stay in a processor's cache from step to step; the whole batch elsewhere."""
    size = max(1, _CHUNK_VALUES // pixels[:1].numel()) if pixels.device.type == "cpu" else max(1, len(pixels))
    return [slice(start, start + size) for start in range(0, len(pixels), size)]


def _mirror_targets(targets: Tensor, mirrored: Tensor, mirror_order: tuple[int, ...] | None) -> Tensor:
    if mirror_order is None or mirror_order == tuple(range(len(mirror_order))):
        return targets
    order = torch.tensor(mirror_order, device=targets.device)
    if targets.ndim == 1:
        return torch.where(mirrored, order[targets], targets)
    return torch.where(mirrored[:, None], targets[:, order], targets)
