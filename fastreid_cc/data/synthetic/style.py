"""How a world looks: what its cameras, clothes and poses have in common. One style, one domain."""

from __future__ import annotations

from dataclasses import dataclass

#: Clothes are mostly black, white, grey and blue, trousers mostly dark: weights over CLOTH.
UPPER_WEIGHTS = (6, 4, 4, 6, 4, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 0.5, 3, 1)
LOWER_WEIGHTS = (5, 4, 3, 2, 5, 3, 1, 1, 1, 0.5, 0.5, 1, 2, 1, 0.5, 0.5, 3, 2)
#: Bright cloth, as in rendered people.
BRIGHT = (1, 0.5, 1, 3, 1, 4, 4, 5, 2, 5, 5, 5, 1, 4, 5, 4, 2, 1)
#: Brown, olive and dark cloth, as in winter.
WINTER = (4, 5, 2, 0.5, 5, 1, 0.5, 1, 5, 1, 0.5, 2, 5, 2, 0.5, 2, 3, 5)


@dataclass(frozen=True)
class Style:
    """The defaults are those of SyntheticReID.

    Args:
        name: part of the folder's name.
        cast: log gain of a camera's colour cast.
        turn: degrees by which the outermost cameras turn hues.
        curves: how far tone curves bend, shared by the channels and each on its own.
        fade: range of how much of a colour a camera keeps, 0 grey..1.
        noise, resolution: ranges over cameras; quality: of the JPEG file.
        turn_between_views: degrees between a camera's usual view of people and the next round.
        view_spread: deviation of the view in one camera, degrees.
        size: range of a body's height in the picture; shift: deviation of its place.
        upper, lower: weights of clothes over `identity.CLOTH`.
        level: brightness added to scenes, -1..1.
    """

    name: str = ""
    cast: float = 0.12
    turn: float = 12.0
    curves: tuple[float, float] = (0.5, 0.3)
    fade: tuple[float, float] = (0.6, 1.0)
    noise: tuple[float, float] = (0.005, 0.02)
    resolution: tuple[float, float] = (0.65, 1.0)
    quality: tuple[int, int] = (35, 85)
    turn_between_views: float = 360.0
    view_spread: float = 60.0
    size: tuple[float, float] = (0.86, 0.97)
    shift: float = 0.03
    upper: tuple[float, ...] = UPPER_WEIGHTS
    lower: tuple[float, ...] = LOWER_WEIGHTS
    level: float = 0.0


WORLD = Style()
#: Rendered people: bright clothes, sharp pictures, alike cameras that see everyone from the front.
STUDIO = Style(
    name="studio",
    cast=0.02,
    turn=2.0,
    curves=(0.1, 0.05),
    fade=(0.95, 1.0),
    noise=(0.0, 0.002),
    resolution=(0.95, 1.0),
    quality=(85, 95),
    turn_between_views=60.0,
    view_spread=25.0,
    size=(0.9, 0.97),
    shift=0.01,
    upper=BRIGHT,
    lower=BRIGHT,
    level=0.35,
)
#: A dim hall in winter: dark clothes, coarse and noisy pictures, people small and off the middle.
DUSK = Style(
    name="dusk",
    cast=0.2,
    turn=5.0,
    curves=(0.3, 0.1),
    fade=(0.35, 0.6),
    noise=(0.03, 0.06),
    resolution=(0.35, 0.55),
    quality=(25, 50),
    turn_between_views=120.0,
    view_spread=35.0,
    size=(0.7, 0.85),
    shift=0.06,
    upper=WINTER,
    lower=WINTER,
    level=-0.35,
)
STYLES = {style.name: style for style in (WORLD, STUDIO, DUSK)}
