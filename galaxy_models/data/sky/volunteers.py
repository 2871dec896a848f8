"""Simulated volunteers who walk the Galaxy Zoo 2 tree, and the vote fractions they leave behind."""

import numpy as np
from numpy.typing import NDArray

from galaxy_models.data.sky.galaxies import ODD_FEATURES, Galaxy
from galaxy_models.morphology.tree import GZ2
from galaxy_models.seeds import derive_seed

NUM_VOLUNTEERS = 40  # on average for a galaxy, as in Galaxy Zoo 2
_SLIP_RATE = 0.035  # of clicks that have nothing to do with the galaxy
_ODD_CONFUSION = {  # what else an odd feature is taken for
    "ring": ("lens", "other"),
    "lens": ("ring", "other"),
    "disturbed": ("irregular", "merger"),
    "irregular": ("disturbed", "other"),
    "other": ("irregular", "merger"),
    "merger": ("disturbed", "irregular"),
    "dust_lane": ("other", "disturbed"),
}
_FEATURE_WEIGHTS = {"ring": 0.6, "irregular": 0.55, "merger": 0.4, "disturbed": 0.4, "dust_lane": 0.4}  # as "features"
_ODD_PRIOR = np.array([0.17, 0.06, 0.13, 0.17, 0.29, 0.16, 0.02])  # where there is nothing odd to be seen

Answers = NDArray[np.int64]


def vote_fractions(galaxy: Galaxy) -> NDArray[np.float64]:
    """Let about 40 volunteers classify a galaxy.

    Each sees the true parameters through seeing, noise and inclination, holds them against a threshold of their own
    for each question, and now and then slips. A question's fractions are over those whom the tree led to it. As in the
    Kaggle columns, question 6 has those of all who were asked, so its two fractions sum to 1 although whoever answered
    "star or artifact" was not asked; if that was everybody, nothing counts as odd.

    Returns:
        (37,) cumulative vote fractions in the order of `GZ2.columns`; they obey the tree's sums.
    """
    rng = np.random.default_rng(derive_seed(galaxy.seed, "volunteers"))
    num_volunteers = max(20, int(rng.poisson(NUM_VOLUNTEERS)))
    answers = _opinions(galaxy, num_volunteers, rng)
    asked = {question.number: np.zeros(num_volunteers, dtype=bool) for question in GZ2.questions}
    asked[1][:] = True
    conditional = np.full(len(GZ2.columns), np.nan)
    for question in GZ2.walk_order:
        num_answers = len(question.answers)
        slips = rng.random(num_volunteers) < _SLIP_RATE
        chosen = np.where(slips, rng.integers(num_answers, size=num_volunteers), answers[question.number])
        who = asked[question.number]
        for i, answer in enumerate(question.answers):
            if answer.leads_to is not None:
                asked[answer.leads_to] |= who & (chosen == i)
        if who.any():
            conditional[question.columns] = np.bincount(chosen[who], minlength=num_answers) / who.sum()
        elif question.name == "odd":
            conditional[question.columns] = (0.0, 1.0)
    return GZ2.cumulative(conditional[None])[0]


def _opinions(galaxy: Galaxy, num_volunteers: int, rng: np.random.Generator) -> dict[int, Answers]:
    """What each volunteer would answer to each question if asked: question's number -> (V,) answer's index."""

    def seen(truth: float, spread: float) -> NDArray[np.float64]:
        # A volunteer's own threshold is the common one and an offset, which is put on the other side here.
        return truth + spread * rng.standard_normal(num_volunteers)

    clarity = galaxy.sharpness
    doubt = 0.7 + 0.6 * (1 - clarity)  # blur and noise widen every opinion
    arms, bar, edge_on = _visible_arms(galaxy), _visible_bar(galaxy), _visible_edge(galaxy)
    features = (seen(_visible_features(galaxy), 0.34 * doubt) > 0.28).astype(int)
    star = seen(0.9 if galaxy.kind == "artefact" else 0.0, 0.24) > 0.5
    seen_arms = seen(arms, 0.2 * doubt)
    uncounted = (seen_arms < 0.42) | (seen(galaxy.flocculence, 0.35) > 0.75)
    miscount = 0.35 + 0.2 * max(galaxy.num_arms - 2, 0)
    num_arms = np.clip(np.rint(seen(galaxy.num_arms or 2, miscount)), 1, 5).astype(int) - 1
    return {
        1: np.where(star, 2, features),
        2: (seen(edge_on, 0.22) < 0.5).astype(int),
        3: (seen(bar, 0.22 * doubt) < 0.28).astype(int),
        4: (seen_arms < 0.23).astype(int),
        5: np.digitize(seen(galaxy.bulge_fraction, 0.13 * doubt), [0.01, 0.24, 0.72]),
        6: (seen(_visible_oddity(galaxy), 0.25) < 0.38).astype(int),
        7: 2 - np.digitize(seen(_apparent_axis_ratio(galaxy), 0.125 * doubt), [0.385, 0.78]),
        8: _odd_kinds(galaxy, num_volunteers, rng),
        9: np.where(
            seen(galaxy.bulge_fraction, 0.15 * doubt) < 0.12, 2, (seen(galaxy.boxiness, 0.3) > 0.75).astype(int)
        ),
        10: np.digitize(seen(galaxy.pitch_deg, 7.0 * doubt), [18.0, 26.0]),
        11: np.where(uncounted, 5, num_arms),
    }


def _face_on(galaxy: Galaxy) -> float:
    return float(np.clip((galaxy.axis_ratio - 0.15) / 0.35, 0.0, 1.0))


def _visible_arms(galaxy: Galaxy) -> float:
    # Tight arms blur into each other first, and many arms before few.
    crowding = min(1.0, galaxy.pitch_deg / 20.0) / (1.0 + 0.12 * max(galaxy.num_arms - 2, 0))
    return galaxy.arm_contrast * _face_on(galaxy) * galaxy.sharpness**0.8 * crowding**0.7


def _visible_bar(galaxy: Galaxy) -> float:
    return galaxy.bar * _face_on(galaxy) * galaxy.sharpness * (1 - 0.5 * galaxy.bulge_fraction)


def _visible_edge(galaxy: Galaxy) -> float:
    if galaxy.kind == "spheroid":
        return float(np.clip((0.45 - galaxy.axis_ratio) / 0.35, 0.0, 1.0))
    return galaxy.edge_on


def _visible_features(galaxy: Galaxy) -> float:
    """How strongly anything but a smooth, round galaxy shows, in [0, 1]."""
    hidden = (1 - _visible_arms(galaxy)) * (1 - 0.6 * _visible_bar(galaxy))
    if galaxy.kind == "disk":
        hidden *= (1 - 0.2 * (1 - galaxy.bulge_fraction)) * (1 - 0.75 * galaxy.edge_on * (0.3 + 0.7 * galaxy.sharpness))
    elif galaxy.kind == "spheroid":
        hidden *= 1 - 0.3 * _visible_edge(galaxy)
    weight = {"ring": 0.6, "irregular": 0.45, "merger": 0.25, "disturbed": 0.25, "dust_lane": 0.4}.get(
        galaxy.odd or "", 0
    )
    return 1 - hidden * (1 - weight * galaxy.odd_strength * galaxy.sharpness)


def _visible_oddity(galaxy: Galaxy) -> float:
    plain = 0.03 if galaxy.odd is None else 0.15
    return plain + galaxy.odd_strength * (0.35 + 0.55 * galaxy.sharpness)


def _apparent_axis_ratio(galaxy: Galaxy) -> float:
    """Axis ratio after seeing has rounded the picture."""
    size, blur = galaxy.r90_arcsec / 2.5, galaxy.seeing_arcsec / 2.355
    minor = max(galaxy.axis_ratio, 0.15) * size
    return float(np.hypot(minor, blur) / np.hypot(size, blur))


def _odd_kinds(galaxy: Galaxy, num_volunteers: int, rng: np.random.Generator) -> Answers:
    chances = _ODD_PRIOR
    if galaxy.odd is not None:
        right = 0.42 + 0.45 * galaxy.odd_strength * galaxy.sharpness
        chances = 0.1 * _ODD_PRIOR
        chances[ODD_FEATURES.index(galaxy.odd)] += right
        for name in _ODD_CONFUSION[galaxy.odd]:
            chances[ODD_FEATURES.index(name)] += (0.9 - right) / 2
    return rng.choice(len(ODD_FEATURES), size=num_volunteers, p=chances / chances.sum())
