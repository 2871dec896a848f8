"""How the structures of a galaxy shine: its light on a grid, before the atmosphere and the camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from galaxy_models.data.sky.galaxies import Galaxy

Image = NDArray[np.float64]

DISK_SCALES_PER_R90 = 3.89  # an exponential disk holds 90 % of its light within 3.89 scale lengths
_DUST_REDDENING = np.array([0.7, 1.0, 1.35])[:, None, None]


@dataclass(frozen=True)
class Grid:
    """Coordinates of a frame's pixels along the galaxy's axes.

    Attributes:
        x: (n, n) along the major axis, in units of R90.
        y: (n, n) along the minor axis, in units of R90.
    """

    x: Image
    y: Image

    @classmethod
    def of_frame(cls, num_px: int, half_side_r90: float, angle_rad: float) -> "Grid":
        """The grid of a square frame of `num_px` pixels a side."""
        line = (np.arange(num_px) + 0.5) / num_px * 2 * half_side_r90 - half_side_r90
        right, up = np.meshgrid(line, line)
        cos, sin = np.cos(angle_rad), np.sin(angle_rad)
        return cls(right * cos + up * sin, up * cos - right * sin)


def old_colour(galaxy: Galaxy) -> Image:
    """(3,) red, green and blue of its old stars, in bulges, bars and spheroids."""
    return np.array([1.36, 1.02, 0.62]) + galaxy.youth * np.array([-0.2, -0.02, 0.22])


def young_colour(galaxy: Galaxy) -> Image:
    """(3,) red, green and blue of its young stars, in arms and knots."""
    return np.array([1.16, 1.0, 0.84]) + galaxy.youth * np.array([-0.42, -0.06, 0.48])


def structured_light(galaxy: Galaxy, grid: Grid) -> Image:
    """The light of everything but smooth spheroids and point sources.

    Args:
        galaxy: what to draw.
        grid: where, along its axes.

    Returns:
        (3, n, n) surface brightness in red, green and blue, in units of the sky noise, without seeing.
    """
    rng = np.random.default_rng(galaxy.seed)
    grid = _warped(galaxy, grid)
    old, young = np.zeros_like(grid.x), np.zeros_like(grid.x)
    if galaxy.kind == "disk":
        old, young = _disk(galaxy, grid, rng)
    elif galaxy.kind == "irregular":
        old, young = _irregular(galaxy, grid, rng)
    if galaxy.odd == "merger":
        old, young = _with_merger(galaxy, grid, rng, (old, young))
    elif galaxy.odd == "lens":
        young = young + _arc(galaxy, grid, rng)
    elif galaxy.odd == "other":
        young = young + _off_centre_knot(galaxy, grid, rng)
    return old_colour(galaxy)[:, None, None] * old + young_colour(galaxy)[:, None, None] * young


def dust_transmission(galaxy: Galaxy, grid: Grid) -> Image:
    """(3, n, n) share of the light that a dust lane along the major axis lets through, in (0, 1]."""
    # The lane lies in front of the bulge, a little off the centre, as in a disk that is not quite edge-on.
    width = 0.035 + 0.03 * galaxy.axis_ratio
    lane = np.exp(-0.5 * ((grid.y - 0.3 * width) / width) ** 2 - 0.5 * (grid.x / 0.8) ** 4)
    return np.exp(-2.8 * galaxy.odd_strength * _DUST_REDDENING * lane)


def _warped(galaxy: Galaxy, grid: Grid) -> Grid:
    if galaxy.odd not in ("disturbed", "merger"):
        return grid
    bend = 0.28 * galaxy.odd_strength
    return Grid(grid.x + bend * np.abs(grid.y) ** 1.3, grid.y + bend * (grid.x**2 - 0.2))


def _sersic(radius: Image, half_light: float, index: float) -> Image:
    # Ciotti & Bertin 1999; the small core keeps the grid from undersampling the centre.
    scale = 2 * index - 1 / 3
    return np.exp(-scale * ((np.hypot(radius, 0.04 * half_light) / half_light) ** (1 / index) - 1))


def _noise(rng: np.random.Generator, num_px: int, cells: int) -> Image:
    """(n, n) smooth field of unit variance with about `cells` bumps a side."""
    coarse = rng.standard_normal((cells + 1, cells + 1))
    at = np.arange(num_px) / num_px * cells
    cell = at.astype(int)
    share = at - cell
    share = share * share * (3 - 2 * share)
    rows = coarse[cell] * (1 - share)[:, None] + coarse[cell + 1] * share[:, None]
    field: Image = rows[:, cell] * (1 - share) + rows[:, cell + 1] * share
    return field


def _disk(galaxy: Galaxy, grid: Grid, rng: np.random.Generator) -> tuple[Image, Image]:
    h = 1 / DISK_SCALES_PER_R90
    if galaxy.axis_ratio < 0.22:
        old, young = _edge_on_disk(galaxy, grid, rng, h)
        ratio = 0.55 + 0.25 * (1 - galaxy.boxiness)
    else:
        old, young = _inclined_disk(galaxy, grid, rng, h)
        ratio = max(galaxy.axis_ratio, 0.6)
    power = 2 + 1.5 * galaxy.boxiness * galaxy.edge_on
    radius = (np.abs(grid.x) ** power + np.abs(grid.y / ratio) ** power) ** (1 / power)
    size = h * (0.3 + 0.9 * galaxy.bulge_fraction)
    bulge = _sersic(radius, size, 1.5)
    light = galaxy.bulge_fraction / max(1 - galaxy.bulge_fraction, 0.2) * (old.sum() + young.sum())
    return old + bulge * (light / bulge.sum()), young


def _edge_on_disk(galaxy: Galaxy, grid: Grid, rng: np.random.Generator, h: float) -> tuple[Image, Image]:
    # (x/h) K1(x/h), the edge-on projection of an exponential disk, is close to sqrt(1 + pi x / 2h) exp(-x/h).
    along = np.abs(grid.x) / h
    height = h * (0.13 + 0.9 * galaxy.axis_ratio)
    profile = np.sqrt(1 + np.pi / 2 * along) * np.exp(-along)
    thick = profile / np.cosh(np.clip(grid.y / height, -20, 20)) ** 2
    thin = profile / np.cosh(np.clip(grid.y / (0.6 * height), -20, 20)) ** 2
    knots = np.exp(0.35 * galaxy.arm_contrast * _noise(rng, len(grid.x), 24))
    glow = 1.3 * galaxy.brightness
    return glow * 0.6 * thick, glow * 0.5 * thin * knots


def _inclined_disk(galaxy: Galaxy, grid: Grid, rng: np.random.Generator, h: float) -> tuple[Image, Image]:
    deep = grid.y / galaxy.axis_ratio
    radius = np.hypot(grid.x, deep)
    azimuth = np.arctan2(deep, grid.x)
    glow = 1.3 * galaxy.brightness / np.sqrt(galaxy.axis_ratio)
    smooth = np.exp(-radius / h)
    old, young = glow * 0.55 * smooth, glow * 0.4 * np.exp(-radius / (1.15 * h))
    bar_end = 0.8 * h if galaxy.bar == 0 else h * (1.1 + 0.9 * galaxy.bar)
    if galaxy.num_arms:
        wave = _arms(galaxy, radius / h, azimuth, rng)
        begin = 1 / (1 + np.exp(-(radius - 0.9 * bar_end) / (0.15 * h)))
        contrast = galaxy.arm_contrast * begin
        old = old * (1 + 0.7 * contrast * (wave - 0.4))
        young = young * (1 - 0.75 * contrast) + 1.5 * contrast * young * wave
    if galaxy.bar:
        turn = rng.uniform(0, np.pi)
        along, across = radius * np.cos(azimuth - turn), radius * np.sin(azimuth - turn)
        shape = (np.abs(along) / bar_end) ** 2.5 + (np.abs(across) / (0.25 * bar_end)) ** 2
        old = old + glow * galaxy.bar * np.exp(-1.6 * shape)
        young = young * (1 - 0.6 * galaxy.bar * np.exp(-((radius / bar_end) ** 4)))
    if galaxy.odd == "ring":
        ring = np.exp(-0.5 * ((radius - 2.4 * h) / (0.3 * h)) ** 2)
        gap = 1 - 0.7 * galaxy.odd_strength * np.exp(-0.5 * ((radius - 1.5 * h) / (0.4 * h)) ** 2)
        old, young = old * gap, young * gap + glow * 0.35 * galaxy.odd_strength * ring
    return old, young


def _arms(galaxy: Galaxy, radius: Image, azimuth: Image, rng: np.random.Generator) -> Image:
    """(n, n) logarithmic spiral pattern from 0 to about 3, with knots; radius in disk scale lengths."""
    winding = np.log(np.maximum(radius, 0.05)) / np.tan(np.radians(galaxy.pitch_deg))
    ragged = 1.6 * galaxy.flocculence * _noise(rng, len(radius), 9)
    phase = galaxy.num_arms * (azimuth - galaxy.arm_sense * winding) + rng.uniform(0, 2 * np.pi) + ragged
    sharp = 1.6 + 1.4 * (galaxy.num_arms <= 2)
    ridge = np.exp(sharp * (np.cos(phase) - 1))
    knots = np.exp((0.3 + 0.4 * galaxy.flocculence) * _noise(rng, len(radius), 30))
    return 2.2 * ridge * knots


def _irregular(galaxy: Galaxy, grid: Grid, rng: np.random.Generator) -> tuple[Image, Image]:
    envelope = np.exp(-np.hypot(grid.x - 0.1, grid.y / galaxy.axis_ratio) / 0.33)
    patches = np.exp(0.7 * galaxy.odd_strength * _noise(rng, len(grid.x), 8))
    young = 0.4 * galaxy.brightness * envelope * patches
    for _ in range(int(rng.integers(3, 8))):
        x, y = rng.normal(0, 0.35), rng.normal(0, 0.3) * galaxy.axis_ratio
        size = rng.uniform(0.04, 0.12)
        blob = np.exp(-((grid.x - x) ** 2 + (grid.y - y) ** 2) / (2 * size**2))
        young = young + galaxy.brightness * galaxy.odd_strength * rng.uniform(0.15, 0.7) * blob
    return 0.15 * galaxy.brightness * envelope, young


def _with_merger(
    galaxy: Galaxy, grid: Grid, rng: np.random.Generator, light: tuple[Image, Image]
) -> tuple[Image, Image]:
    """Add a companion of similar brightness, and the tail that the two pull out of each other."""
    distance, direction = rng.uniform(0.45, 1.1), rng.uniform(0, 2 * np.pi)
    x, y = grid.x - distance * np.cos(direction), grid.y - distance * np.sin(direction)
    ratio = rng.uniform(0.4, 1.0)
    companion = _sersic(np.hypot(x, y / ratio), rng.uniform(0.12, 0.28), 1.5)
    radius, azimuth = np.hypot(grid.x, grid.y), np.arctan2(grid.y, grid.x)
    loose = np.tan(np.radians(rng.uniform(25, 50)))
    phase = azimuth - direction - rng.choice([-1, 1]) * np.log(np.maximum(radius, 0.05) / distance) / loose
    tail = np.exp(7 * (np.cos(phase) - 1) - 0.5 * ((radius - 0.9) / 0.3) ** 2)
    glow = galaxy.brightness * (0.4 + 0.6 * galaxy.odd_strength)
    old, young = light
    return old + glow * rng.uniform(0.25, 0.6) * companion, young + glow * 0.22 * tail + 0.2 * glow * companion


def _arc(galaxy: Galaxy, grid: Grid, rng: np.random.Generator) -> Image:
    radius, azimuth = np.hypot(grid.x, grid.y), np.arctan2(grid.y, grid.x)
    middle, extent = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 1.1)
    away = np.angle(np.exp(1j * (azimuth - middle)))
    ridge = np.exp(-0.5 * ((radius - 0.85) / 0.05) ** 2 - 0.5 * (away / extent) ** 4)
    return 0.3 * galaxy.brightness * galaxy.odd_strength * ridge


def _off_centre_knot(galaxy: Galaxy, grid: Grid, rng: np.random.Generator) -> Image:
    distance, direction = rng.uniform(0.25, 0.7), rng.uniform(0, 2 * np.pi)
    x, y = grid.x - distance * np.cos(direction), grid.y - distance * np.sin(direction)
    return 1.2 * galaxy.brightness * galaxy.odd_strength * np.exp(-(x**2 + y**2) / (2 * 0.07**2))
