"""Who a synthetic person is: everything that stays the same from image to image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .style import WORLD, Style

Colour = tuple[int, int, int]
T = TypeVar("T")


def _palette(codes: str) -> tuple[Colour, ...]:
    """Colours written in hexadecimal."""
    return tuple((c[0], c[1], c[2]) for c in map(bytes.fromhex, codes.split()))


SKIN = _palette("ecc4aa dcac8a bc8864 8e6044 5c3e2e")
HAIR = _palette("181618 3a281e 68462a b89254 84807e 803420")
CLOTH = _palette(
    "1e1e22 46484e 8a8c90 e6e6e4 202c60 3662b2 92b6de b4262a 6a1c2e "
    "de7c2c e2c448 307c46 6a6a3c 248286 e28ca2 704290 ccb894 6a4830"
)
UPPERS = ("tee", "shirt", "jacket", "coat", "sleeveless")
LOWERS = ("trousers", "shorts", "skirt", "long skirt")
PATTERNS = tuple("plain hoops stripes checks dots halves band diagonal panel".split())
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
        hip: distance of the hip from the top of the head, 0.47 to 0.54.
        gait: stride relative to the average, 0.6 to 1.4.
        side: +1 or -1, the side a bag hangs on.
        haircut, hat, upper, pattern, lower, bag: of HAIRCUTS, HATS, UPPERS, PATTERNS, LOWERS, BAGS.
        front_print, back_print: of PRINTS.
        upper_colour, second_colour: of the upper garment and of the pattern on it.
        pattern_period: size of the pattern's repeat.
        lower_colour, seam_colour: of trousers or skirt, and of a stripe along the legs if any.
        leg_colour: of legs that shorts or a skirt leave bare, or of tights.
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


def _one_of(
    rng: np.random.Generator, values: tuple[T, ...], weights: tuple[float, ...] | None = None
) -> T:
    p = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    return values[int(rng.choice(len(values), p=p))]


def _colour(rng: np.random.Generator, weights: tuple[float, ...]) -> Colour:
    base = np.array(_one_of(rng, CLOTH, weights), float)
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
    lower = _one_of(rng, LOWERS, (11, 3, 3, 2))
    skin = _one_of(rng, SKIN)
    front_print = _one_of(rng, PRINTS, (3, 2, 2, 2, 2, 2))
    other_print = _one_of(rng, PRINTS, (3, 1, 1, 1, 1, 1))
    leg_colour = _colour(rng, trousers) if rng.random() < 0.4 else skin
    has_seam = lower == "trousers" and rng.random() < 0.25
    return Identity(
        stature=float(rng.uniform(0.9, 1.06)),
        build=float(rng.uniform(0.85, 1.45)),
        hip=float(rng.uniform(0.47, 0.54)),
        gait=float(rng.uniform(0.6, 1.4)),
        side=1 if rng.random() < 0.5 else -1,
        skin=skin,
        hair=_one_of(rng, HAIR, (5, 4, 3, 2, 1, 1)),
        haircut=_one_of(rng, HAIRCUTS, (5, 1, 4, 2, 2)),
        hat=_one_of(rng, HATS, (7, 2, 2, 1)),
        hat_colour=_colour(rng, upper),
        upper=_one_of(rng, UPPERS, (4, 4, 3, 3, 2)),
        upper_colour=upper_colour,
        second_colour=_contrasting(rng, upper_colour, 45, upper),
        pattern=_one_of(rng, PATTERNS, (3, 2, 2, 2, 2, 2, 2, 2, 2)),
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
        bag=_one_of(rng, BAGS, (4, 3, 3, 3)),
        bag_colour=bag_colour,
    )
