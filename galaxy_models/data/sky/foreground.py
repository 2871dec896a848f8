"""What stands before and beside a galaxy: stars, small galaxies, and the artefacts that were taken for galaxies."""

from typing import Any

import galsim
import numpy as np

from galaxy_models.data.sky.galaxies import HALF_FRAME_R90, Galaxy
from galaxy_models.data.sky.light import Grid, Image

_STARS_PER_ARCSEC2 = 0.9 / 45.0**2
_GALAXIES_PER_ARCSEC2 = 1.0 / 45.0**2
_COOL_STAR = np.array([1.55, 0.95, 0.5])
_HOT_STAR = np.array([0.85, 0.98, 1.17])


def drawn(profile: Any, num_px: int, scale: float, *, at: tuple[float, float] = (0.0, 0.0)) -> Image:
    """(n, n) picture of a GalSim profile that is convolved with the seeing; `at` in pixels from the centre."""
    image = profile.drawImage(nx=num_px, ny=num_px, scale=scale, method="no_pixel", offset=at, dtype=float)
    pixels: Image = image.array
    return pixels


def neighbours(galaxy: Galaxy, num_px: int, scale: float, rng: np.random.Generator) -> Image:
    """(3, n, n) foreground stars and small galaxies, with as many to the square arcsecond in every frame."""
    area = (num_px * scale) ** 2
    bands = np.zeros((3, num_px, num_px))
    for _ in range(rng.poisson(_STARS_PER_ARCSEC2 * area)):
        light = min(250.0 * rng.pareto(0.9), 4e5)
        bands += _star(galaxy.seeing_arcsec, num_px, scale, rng, light=light, at=_away_from_centre(rng, num_px))
    for _ in range(rng.poisson(_GALAXIES_PER_ARCSEC2 * area)):
        half_light = rng.uniform(0.4, 1.6)
        # A small exponential galaxy and the seeing, both close to Gaussian, make a Gaussian: no transform needed.
        sigma = float(np.hypot(half_light / 1.18, galaxy.seeing_arcsec / 2.355))
        profile = galsim.Gaussian(sigma=sigma, flux=min(300.0 * (1 + rng.pareto(1.2)), 2e4))
        profile = profile.shear(q=rng.uniform(0.5, 1.0), beta=rng.uniform(0, np.pi) * galsim.radians)
        pixels = drawn(profile, num_px, scale, at=_away_from_centre(rng, num_px))
        bands += _between(_COOL_STAR, np.ones(3), rng.beta(2.0, 1.5)) * pixels
    return bands


def artefact(galaxy: Galaxy, num_px: int, scale: float, rng: np.random.Generator) -> Image:
    """(3, n, n) a satellite's trail, or a bright star with its halo and spikes, where a galaxy should be."""
    grid = Grid.of_frame(num_px, HALF_FRAME_R90, galaxy.angle_rad)
    if galaxy.trail:
        # The bands are exposed one after the other, so that a satellite crosses only one of them.
        width = 0.6 * galaxy.seeing_arcsec / galaxy.r90_arcsec
        line = 0.7 * galaxy.brightness * np.exp(-0.5 * (grid.y / width) ** 2)
        return np.eye(3)[rng.integers(3)][:, None, None] * line + 0.05 * line
    bands = _star(galaxy.seeing_arcsec, num_px, scale, rng, light=galaxy.brightness * rng.uniform(500, 6000))
    radius = np.hypot(grid.x, grid.y)
    halo = galaxy.brightness * rng.uniform(0.1, 0.5) / (1 + (radius / 0.2) ** 2) ** 1.5
    spikes = np.exp(-np.abs(grid.x) / 0.03) + np.exp(-np.abs(grid.y) / 0.03)
    glow = halo + galaxy.brightness * rng.uniform(0.2, 0.8) * spikes * np.exp(-radius / 0.5)
    return bands + _between(_COOL_STAR, _HOT_STAR, rng.random()) * glow


def _star(
    seeing_arcsec: float,
    num_px: int,
    scale: float,
    rng: np.random.Generator,
    *,
    light: float,
    at: tuple[float, float] = (0.0, 0.0),
) -> Image:
    profile = galsim.Moffat(beta=3.5, fwhm=seeing_arcsec, flux=light)
    return _between(_COOL_STAR, _HOT_STAR, rng.beta(0.7, 0.7)) * drawn(profile, num_px, scale, at=at)


def _between(first: Image, second: Image, share: float) -> Image:
    """(3, 1, 1) a colour between two."""
    return (first * (1 - share) + second * share)[:, None, None]


def _away_from_centre(rng: np.random.Generator, num_px: int) -> tuple[float, float]:
    # A survey's catalogue splits off what coincides with a galaxy's nucleus, or never calls it a galaxy.
    while True:
        x, y = rng.uniform(-0.5, 0.5, size=2)
        if np.hypot(x, y) > 0.12:
            return float(x * num_px), float(y * num_px)
