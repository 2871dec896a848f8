"""Photographs of the simulated sky: seeing, neighbours, sky noise and an SDSS-like colour composite."""

from typing import Any

import galsim
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from galaxy_models.data.sky.foreground import artefact, drawn, neighbours
from galaxy_models.data.sky.galaxies import HALF_FRAME_R90, Galaxy
from galaxy_models.data.sky.light import Grid, Image, dust_transmission, old_colour, structured_light
from galaxy_models.seeds import derive_seed

SDSS_PX_ARCSEC = 0.396
_FRAME_PX = (44, 150)  # least and most pixels of a frame's side; beyond, pixels are larger than the telescope's
_FINE_GRID_MAX_PX = 90  # frames up to this side are drawn on a grid twice as fine, since their arms are narrow
_SOFTENING = 14.0  # in standard deviations of the sky noise: linear below, logarithmic above
_WHITE = 1500.0
_BAND_NOISE = np.array([2.4, 1.8, 2.2])[:, None, None]
_SKY_LEVEL = 1.2  # the background is nearly but not quite black
_R90_PER_HALF_LIGHT = 2.5
_GSPARAMS = galsim.GSParams(folding_threshold=2e-2, maxk_threshold=5e-3)


def photograph(galaxy: Galaxy, *, px: int, crop: float = 1.0) -> NDArray[np.uint8]:
    """Take the picture of one galaxy.

    The frame is exposed at the telescope's own pixels and then resampled, as cutouts of surveys are, so the same
    galaxy is seen at every size.

    Args:
        galaxy: what to draw.
        px: side of the returned image, in pixels.
        crop: share of the frame's side to keep, about its centre, in (0, 1].

    Returns:
        (px, px, 3) uint8, RGB.
    """
    field_arcsec = 2 * HALF_FRAME_R90 * galaxy.r90_arcsec
    num_px = int(np.clip(round(field_arcsec / SDSS_PX_ARCSEC), *_FRAME_PX))
    scale = field_arcsec / num_px
    rng = np.random.default_rng(derive_seed(galaxy.seed, "camera"))
    bands = _misaligned(exposure(galaxy, num_px, scale), rng)
    if galaxy.kind == "artefact":
        bands = bands + artefact(galaxy, num_px, scale, rng)
    bands = bands + neighbours(galaxy, num_px, scale, rng)
    # Larger pixels gather more sky, but per unit of sky its noise averages out.
    noise = min(1.0, SDSS_PX_ARCSEC / scale)
    bands = bands + noise * rng.normal(size=bands.shape) * _BAND_NOISE
    return _resampled(composite(bands), px=px, crop=crop)


def composite(bands: Image) -> NDArray[np.uint8]:
    """Compress three bands into a colour picture that keeps their ratios.

    Args:
        bands: (3, n, n) red, green and blue, in units of the sky noise.

    Returns:
        (n, n, 3) uint8.

    Source:
        Lupton et al. 2004, PASP 116, 133: one asinh stretch of the mean intensity for all bands.
    """
    bands = bands + _SKY_LEVEL
    intensity = np.maximum(bands.mean(axis=0), 1e-3)
    stretch = np.arcsinh(intensity / _SOFTENING) / np.arcsinh(_WHITE / _SOFTENING)
    colours = np.maximum(bands, 0.0) / np.maximum(intensity, 0.3) * stretch
    colours = colours / np.maximum(colours.max(axis=0), 1.0)
    pixels: NDArray[np.uint8] = np.clip(np.round(255 * colours), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(pixels)


def _resampled(pixels: NDArray[np.uint8], *, px: int, crop: float) -> NDArray[np.uint8]:
    side = len(pixels)
    margin = side * (1 - crop) / 2
    box = (margin, margin, side - margin, side - margin)
    resized = PillowImage.fromarray(pixels).resize((px, px), PillowImage.Resampling.BICUBIC, box=box)
    return np.asarray(resized)


def exposure(galaxy: Galaxy, num_px: int, scale: float) -> Image:
    """The galaxy itself as the telescope sees it: without neighbours, noise, and all that is an artefact.

    Args:
        galaxy: what to draw.
        num_px: side of the frame, in pixels.
        scale: side of a pixel, in arcsec.

    Returns:
        (3, num_px, num_px) red, green and blue, in units of the sky noise.
    """
    fine = 2 if num_px <= _FINE_GRID_MAX_PX else 1
    grid = Grid.of_frame(fine * num_px, HALF_FRAME_R90, galaxy.angle_rad)
    dust = dust_transmission(galaxy, grid) if galaxy.odd == "dust_lane" else None
    seeing = galsim.Moffat(beta=3.5, fwhm=galaxy.seeing_arcsec, gsparams=_GSPARAMS)
    light = structured_light(galaxy, grid)
    bands = np.zeros((3, num_px, num_px))
    if light.any():
        bands = _seen_through(light if dust is None else light * dust, seeing, fine=fine, scale=scale)
    if galaxy.kind == "spheroid":
        smooth = _spheroid(galaxy, seeing, num_px, scale) * old_colour(galaxy)[:, None, None]
        # A spheroid is drawn with the seeing in it, so its dust is blurred alike: exact where the light varies slowly.
        bands += smooth if dust is None else smooth * _seen_through(dust, seeing, fine=fine, scale=scale)
    return bands


def _seen_through(light: Image, seeing: Any, *, fine: int, scale: float) -> Image:
    """Convolve (3, f*n, f*n) light with the seeing and gather it into (3, n, n) pixels."""
    side = light.shape[-1]
    # The kernel's peak belongs on pixel side // 2, which ifftshift brings to the corner.
    to_pixel = 0.5 * (1 - side % 2)
    image = seeing.drawImage(nx=side, ny=side, scale=scale / fine, method="no_pixel", offset=(to_pixel, to_pixel))
    kernel = image.array.astype(float)
    transfer = np.fft.rfft2(np.fft.ifftshift(kernel / kernel.sum()))
    seen = np.fft.irfft2(np.fft.rfft2(light) * transfer, s=(side, side))
    return seen.reshape(3, side // fine, fine, side // fine, fine).mean(axis=(2, 4))


def _spheroid(galaxy: Galaxy, seeing: Any, num_px: int, scale: float) -> Image:
    """(n, n) a Sersic spheroid, brightness within its half-light radius as the galaxy's parameters say."""
    # The radius is that of a circle which an elongated galaxy outgrows along its major axis.
    half_light = galaxy.r90_arcsec / _R90_PER_HALF_LIGHT * galaxy.axis_ratio**0.3
    # Brightness is light per pixel, so the flux in pixels of this scale is that times the ellipse's half-lit area.
    flux = 2 * galaxy.brightness * np.pi * (half_light / scale) ** 2
    profile = galsim.Sersic(n=galaxy.sersic, half_light_radius=half_light, flux=flux, gsparams=_GSPARAMS)
    profile = profile.shear(q=galaxy.axis_ratio, beta=galaxy.angle_rad * galsim.radians)
    return drawn(galsim.Convolve(profile, seeing, gsparams=_GSPARAMS), num_px, scale)


def _misaligned(bands: Image, rng: np.random.Generator) -> Image:
    """Shift the bands against each other by a fraction of a pixel, as a drift scan leaves them."""
    rows = np.fft.fftfreq(bands.shape[1])[:, None]
    columns = np.fft.rfftfreq(bands.shape[2])
    shifts = rng.normal(0.0, 0.16, size=(3, 2, 1, 1))
    phase = np.exp(-2j * np.pi * (shifts[:, 0] * rows + shifts[:, 1] * columns))
    return np.fft.irfft2(np.fft.rfft2(bands) * phase, s=bands.shape[1:])
