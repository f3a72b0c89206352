"""Who a synthetic person is: everything that stays the same from image to image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .style import WORLD, Style

Colour = tuple[int, int, int]

SKIN: tuple[Colour, ...] = (
    (236, 196, 170),
    (220, 172, 138),
    (188, 136, 100),
    (142, 96, 68),
    (92, 62, 46),
)
HAIR: tuple[Colour, ...] = (
    (24, 22, 24),
    (58, 40, 30),
    (104, 70, 42),
    (184, 146, 84),
    (132, 128, 126),
    (128, 52, 32),
)
CLOTH: tuple[Colour, ...] = (
    (30, 30, 34),
    (70, 72, 78),
    (138, 140, 144),
    (230, 230, 228),
    (32, 44, 96),
    (54, 98, 178),
    (146, 182, 222),
    (180, 38, 42),
    (106, 28, 46),
    (222, 124, 44),
    (226, 196, 72),
    (48, 124, 70),
    (106, 106, 60),
    (36, 130, 134),
    (226, 140, 162),
    (112, 66, 144),
    (204, 184, 148),
    (106, 72, 48),
)

UPPERS = ("tee", "shirt", "jacket", "coat", "sleeveless")
LOWERS = ("trousers", "shorts", "skirt", "long skirt")
PATTERNS = (
    "plain",
    "hoops",
    "stripes",
    "checks",
    "dots",
    "halves",
    "band",
    "diagonal",
    "panel",
)
PRINTS = ("none", "disc", "square", "bar", "triangle", "cross")
HAIRCUTS = ("short", "bald", "long", "bun", "tail")
HATS = ("none", "cap", "beanie", "brim")
BAGS = ("none", "backpack", "cross-body", "tote")


@dataclass(frozen=True)
class Identity:
    """A person. Lengths are in units of body height, colours in sRGB.

    Args:
        stature: body height relative to the crop's usual one, 0.9 to 1.06.
        build: width relative to the average, 0.85 to 1.45.
        hip: height of the hip, 0.47 to 0.54, counted from the top of the head.
        pattern_period: size of the pattern's repeat.
        side: +1 or -1, the side a bag hangs on.
        gait: stride relative to the average, 0.6 to 1.4.
    """

    stature: float
    build: float
    hip: float
    gait: float
    side: int
    skin: Colour
    hair: Colour
    haircut: str
    hat: str
    hat_colour: Colour
    upper: str
    upper_colour: Colour
    second_colour: Colour
    pattern: str
    pattern_period: float
    front_print: str
    back_print: str
    print_colour: Colour
    lower: str
    lower_colour: Colour
    seam_colour: Colour | None
    leg_colour: Colour
    shoe_colour: Colour
    boots: bool
    bag: str
    bag_colour: Colour


def _pick(rng: np.random.Generator, values: tuple, weights: tuple | None = None) -> int:
    p = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    return int(rng.choice(len(values), p=p))


def _colour(rng: np.random.Generator, weights: tuple | None = None) -> Colour:
    base = np.array(CLOTH[_pick(rng, CLOTH, weights)], float)
    shade = base * rng.uniform(0.85, 1.12) + rng.uniform(-10, 10, 3)
    r, g, b = (int(v) for v in np.clip(shade, 8, 247))
    return r, g, b


def _luma(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def _contrasting(
    rng: np.random.Generator, other: Colour, least: float, weights: tuple[float, ...]
) -> Colour:
    """A cloth colour whose brightness differs from `other` by at least `least`."""
    for _ in range(50):
        colour = _colour(rng, weights)
        if abs(_luma(colour) - _luma(other)) >= least:
            return colour
    return (20, 20, 24) if _luma(other) > 128 else (236, 236, 232)


def sample_identity(rng: np.random.Generator, style: Style = WORLD) -> Identity:
    """Draws a person in the clothes of a style; all their randomness comes from `rng`."""
    upper, trousers = style.upper, style.lower
    upper_colour = _colour(rng, upper)
    lower_colour = _colour(rng, trousers)
    bag_colour = _contrasting(rng, upper_colour, 35, upper)
    lower = LOWERS[_pick(rng, LOWERS, (11, 3, 3, 2))]
    skin = SKIN[_pick(rng, SKIN)]
    front_print = PRINTS[_pick(rng, PRINTS, (3, 2, 2, 2, 2, 2))]
    other_print = PRINTS[_pick(rng, PRINTS, (3, 1, 1, 1, 1, 1))]
    leg_colour = _colour(rng, trousers) if rng.random() < 0.4 else skin
    has_seam = lower == "trousers" and rng.random() < 0.25
    return Identity(
        stature=float(rng.uniform(0.9, 1.06)),
        build=float(rng.uniform(0.85, 1.45)),
        hip=float(rng.uniform(0.47, 0.54)),
        gait=float(rng.uniform(0.6, 1.4)),
        side=1 if rng.random() < 0.5 else -1,
        skin=skin,
        hair=HAIR[_pick(rng, HAIR, (5, 4, 3, 2, 1, 1))],
        haircut=HAIRCUTS[_pick(rng, HAIRCUTS, (5, 1, 4, 2, 2))],
        hat=HATS[_pick(rng, HATS, (7, 2, 2, 1))],
        hat_colour=_colour(rng, upper),
        upper=UPPERS[_pick(rng, UPPERS, (4, 4, 3, 3, 2))],
        upper_colour=upper_colour,
        second_colour=_contrasting(rng, upper_colour, 45, upper),
        pattern=PATTERNS[_pick(rng, PATTERNS, (3, 2, 2, 2, 2, 2, 2, 2, 2))],
        pattern_period=float(rng.uniform(0.08, 0.18)),
        front_print=front_print,
        back_print=front_print if rng.random() < 0.5 else other_print,
        print_colour=_contrasting(rng, upper_colour, 45, upper),
        lower=lower,
        lower_colour=lower_colour,
        seam_colour=_contrasting(rng, lower_colour, 60, upper) if has_seam else None,
        leg_colour=leg_colour,
        shoe_colour=_colour(rng, trousers),
        boots=bool(rng.random() < 0.25),
        bag=BAGS[_pick(rng, BAGS, (4, 3, 3, 3))],
        bag_colour=bag_colour,
    )
