"""What there is in the simulated sky: the physical parameters of one galaxy, drawn from its own seed."""

from dataclasses import dataclass

import numpy as np

from galaxy_models.seeds import derive_seed

# In the order of the answers of "Is the odd feature a ring, or is the galaxy disturbed or irregular?".
ODD_FEATURES = ("ring", "lens", "disturbed", "irregular", "other", "merger", "dust_lane")

# Half the frame's side, in radii that hold 90 % of the light. The frame is the central half of a Galaxy Zoo 2 cutout,
# whose half side is 2.12 Petrosian R90; a Petrosian radius misses some light, most of all of bulges.
HALF_FRAME_R90 = 1.6


@dataclass(frozen=True, kw_only=True)
class Galaxy:
    """One object at the centre of a frame, and how well it was seen.

    Attributes:
        seed: of everything else in its frame: neighbours, knots, sky noise.
        kind: `spheroid`, `disk`, `irregular` or `artefact` (a star or a satellite trail taken for a galaxy).
        r90_arcsec: radius that holds 90 % of the light.
        seeing_arcsec: full width at half maximum of the point spread function.
        brightness: of the disk's centre face-on, or of the spheroid within its half-light radius, in standard
            deviations of the sky noise in one pixel of 0.396 arcsec.
        angle_rad: position angle of the major axis.
        axis_ratio: minor over major axis on the sky, in (0, 1]; for a disk its cosine of inclination.
        sersic: index of the spheroid's profile.
        bulge_fraction: share of the light in the bulge; 1 for a spheroid.
        boxiness: of a bulge seen edge-on, 0 (round) to 1 (boxy).
        bar: strength, 0 (none) to 1.
        num_arms: 0 where there is no spiral pattern.
        pitch_deg: angle between an arm and a circle; small is tightly wound.
        arm_contrast: of arms over the disk, 0 to 1.
        arm_sense: +1 or -1, the sense in which the arms wind.
        flocculence: how broken up the arms are, 0 to 1.
        odd: one of `ODD_FEATURES`, or None.
        odd_strength: 0 to 1.
        youth: how blue its disk is, 0 to 1.
        trail: for an artefact, whether it is a satellite's trail and not a star.
    """

    seed: int
    kind: str
    r90_arcsec: float
    seeing_arcsec: float
    brightness: float
    angle_rad: float
    axis_ratio: float
    sersic: float = 1.0
    bulge_fraction: float = 0.0
    boxiness: float = 0.0
    bar: float = 0.0
    num_arms: int = 0
    pitch_deg: float = 20.0
    arm_contrast: float = 0.0
    arm_sense: int = 1
    flocculence: float = 0.0
    odd: str | None = None
    odd_strength: float = 0.0
    youth: float = 0.5
    trail: bool = False

    @property
    def edge_on(self) -> float:
        """How nearly edge-on a disk is seen: 1 for exactly, 0 from some 70 degrees of inclination down."""
        return float(np.clip((0.34 - self.axis_ratio) / 0.26, 0.0, 1.0)) if self.kind == "disk" else 0.0

    @property
    def sharpness(self) -> float:
        """How much of its structure seeing and noise leave visible, in (0, 1)."""
        blur = 3.2 * self.seeing_arcsec / self.r90_arcsec
        noise = 14.0 / self.brightness
        return float(1.0 / (1.0 + blur**2 + noise**2))


def draw_galaxy(seed: int, index: int) -> Galaxy:
    """Draw the parameters of galaxy number `index` of the sky `seed`, whatever the number of galaxies asked for."""
    rng = np.random.default_rng(derive_seed(seed, "galaxy", index))
    common = {
        "seed": derive_seed(seed, "frame", index),
        "r90_arcsec": float(np.clip(11.5 * np.exp(0.42 * rng.standard_normal()), 5.0, 32.0)),
        "seeing_arcsec": float(np.clip(rng.normal(1.3, 0.15), 0.9, 1.8)),
        "brightness": float(np.clip(95.0 * np.exp(0.45 * rng.standard_normal()), 15.0, 300.0)),
        "angle_rad": float(rng.uniform(0.0, np.pi)),
    }
    kinds = (_draw_spheroid, _draw_disk, _draw_irregular, _draw_artefact)
    return kinds[rng.choice(4, p=[0.40, 0.555, 0.03, 0.015])](rng, common)


def _draw_spheroid(rng: np.random.Generator, common: dict) -> Galaxy:
    shape = rng.choice(3, p=[0.35, 0.42, 0.23])
    low, high = ((0.82, 1.0), (0.42, 0.85), (0.2, 0.4))[shape]
    odd, strength = _draw_odd(
        rng, {"merger": 0.06, "disturbed": 0.02, "dust_lane": 0.02, "other": 0.025, "lens": 0.015}
    )
    return Galaxy(
        kind="spheroid",
        axis_ratio=float(rng.uniform(low, high)),
        # Elongated ones are lenticulars, with less concentrated light. Steps keep GalSim's profile tables few.
        sersic=float(rng.integers(3, 6) if shape == 2 else rng.integers(4, 10)) / 2,
        bulge_fraction=1.0,
        odd=odd,
        odd_strength=strength,
        youth=float(rng.beta(1.0, 4.0)),
        **common,
    )


def _draw_disk(rng: np.random.Generator, common: dict) -> Galaxy:
    spiral = rng.random() < 0.78
    num_arms = int(rng.choice([1, 2, 3, 4, 6], p=[0.05, 0.6, 0.14, 0.08, 0.13])) if spiral else 0
    bulge = float(rng.beta(1.3, 4.5)) if spiral else float(rng.beta(1.6, 3.0))
    face_on_bar = float(rng.uniform(0.4, 1.0)) if rng.random() < 0.35 else 0.0
    # More edge-on disks than random orientation gives: they look brighter, and a flux limit prefers them.
    axis_ratio = float(rng.uniform(0.02, 0.2)) if rng.random() < 0.08 else float(rng.uniform(0.05, 1.0))
    rates = {"merger": 0.05, "disturbed": 0.05, "other": 0.03, "lens": 0.01}
    # A ring shows face-on, a dust lane edge-on.
    rates |= {"dust_lane": 0.12} if axis_ratio < 0.4 else {"ring": 0.07}
    odd, strength = _draw_odd(rng, rates)
    return Galaxy(
        kind="disk",
        axis_ratio=axis_ratio,
        bulge_fraction=min(bulge, 0.75),
        boxiness=float(rng.beta(1.0, 2.0)),
        bar=face_on_bar,
        num_arms=num_arms,
        # Disks with large bulges wind their arms more tightly.
        pitch_deg=float(np.clip(rng.normal(22.0 - 16.0 * bulge, 6.0), 7.0, 38.0)),
        arm_contrast=float(rng.uniform(0.3, 1.0)) if spiral else 0.0,
        arm_sense=int(rng.choice([-1, 1])),
        flocculence=float(rng.uniform(0.0, 0.5) if num_arms in (1, 2) else rng.uniform(0.2, 0.8)),
        odd=odd,
        odd_strength=strength,
        youth=float(np.clip(rng.normal(0.85 - 0.9 * bulge, 0.25), 0.0, 1.0)),
        **common,
    )


def _draw_irregular(rng: np.random.Generator, common: dict) -> Galaxy:
    return Galaxy(
        kind="irregular",
        axis_ratio=float(rng.uniform(0.35, 1.0)),
        odd="irregular",
        odd_strength=float(rng.uniform(0.5, 1.0)),
        youth=float(rng.uniform(0.6, 1.0)),
        **common,
    )


def _draw_artefact(rng: np.random.Generator, common: dict) -> Galaxy:
    return Galaxy(kind="artefact", axis_ratio=1.0, trail=bool(rng.random() < 0.35), **common)


def _draw_odd(rng: np.random.Generator, rates: dict[str, float]) -> tuple[str | None, float]:
    names = [*rates, None]
    odd = names[rng.choice(len(names), p=[*rates.values(), 1.0 - sum(rates.values())])]
    strength = float(rng.uniform(0.35, 1.0))
    return odd, strength if odd is not None else 0.0
