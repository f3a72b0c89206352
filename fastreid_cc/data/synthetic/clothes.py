"""What a person wears: the upper garment with its pattern and print, and bags."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .body import Body, Pen, Point, shaded
from .identity import Colour, Identity

OPEN = ("jacket", "coat")  # worn open: a shirt shows


def pattern(person: Identity, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where the second colour of the upper garment goes.

    Args:
        u: [W], across the body, in body heights, 0 the middle, unfolded from the view.
        v: [H], down the body, 0 the shoulders.
    Returns:
        bool [H, W].
    """
    p = person.pattern_period
    x, y = u[None, :], v[:, None]
    across, down = np.mod(x / p + 0.25, 1.0) < 0.5, np.mod(y / p, 1.0) < 0.5
    cx, cy = np.mod(x / p, 1.0) - 0.5, np.mod(y / p, 1.0) - 0.5
    masks = {
        "plain": np.False_,
        "hoops": down,
        "stripes": across,
        "checks": across ^ down,
        "dots": cx * cx + cy * cy < 0.1,
        "halves": y > 0.1 + p,
        "band": np.abs(y - 0.04 - p) < 0.35 * p + 0.012,
        "diagonal": np.mod((x * person.side + y) / (1.5 * p), 1.0) < 0.4,
        "panel": x * person.side > 0,
    }
    return np.broadcast_to(masks[person.pattern], (len(v), len(u)))


def fill_with_cloth(
    pen: Pen, person: Identity, mask: Image.Image, width: float, shade: float
) -> None:
    """Fills `mask` with the upper garment's pattern; `width` squeezes it as the view does."""
    box = mask.getbbox()
    if box is None:
        return
    x0, y0, x1, y1 = box
    u = (np.arange(x0, x1) - pen.origin[0]) / pen.scale / max(width, 0.3)
    v = (np.arange(y0, y1) - pen.origin[1]) / pen.scale - 0.16
    colours = np.array([person.upper_colour, person.second_colour], np.float32) * shade
    tile = np.minimum(colours, 255).astype(np.uint8)[pattern(person, u, v).astype(np.intp)]
    pen.image.paste(Image.fromarray(tile), (x0, y0), mask.crop(box))


def draw_upper(pen: Pen, person: Identity, body: Body) -> None:
    """The upper garment without its sleeves."""
    mask = Image.new("L", pen.image.size)
    s, h = body.shoulder, body.hips
    hem = {"coat": 0.7, "jacket": body.hip_y + 0.05}.get(person.upper, body.hip_y + 0.015)
    flare = h * (1.35 if person.upper == "coat" else 1.08)
    waist = (h * 1.02, body.hip_y - 0.08)
    right = [(0.45 * s, 0.15), (s, 0.185), (0.98 * s, 0.28), waist, (flare, hem)]
    left = [(-x, y) for x, y in reversed(right)]
    ImageDraw.Draw(mask).polygon([pen.at(p) for p in right + left], fill=255)
    fill_with_cloth(pen, person, mask, body.width, 1.0)
    if person.upper in OPEN and body.front > 0.1:
        x, w = 0.35 * s * body.turn, 0.3 * s * body.front
        pen.slab(x, 0.155, hem, w, 0.6 * w, person.print_colour)


def draw_sleeve(
    pen: Pen, person: Identity, body: Body, arm: tuple[Point, Point, Point], shade: float
) -> None:
    """The sleeve of an arm (shoulder, elbow, hand), as far as the garment has one."""
    if person.upper == "sleeveless":
        return
    thick = arm_thickness(person)
    mask = Image.new("L", pen.image.size)
    sleeve = Pen(mask, pen.origin, pen.scale)
    sleeve.limb(arm[0], arm[1], thick * 1.3, thick * 1.1, 255)
    if person.upper != "tee":
        sleeve.limb(arm[1], arm[2], thick * 1.1, thick * 0.9, 255)
    fill_with_cloth(pen, person, mask, body.width, shade)


def arm_thickness(person: Identity) -> float:
    """Half the width of an arm, in body heights."""
    return 0.031 * (0.6 + 0.4 * person.build)


def draw_print(pen: Pen, person: Identity, body: Body) -> None:
    """The print on the chest or the back."""
    name = person.front_print if body.front > 0 else person.back_print
    seen = abs(body.front)
    if name == "none" or seen < 0.25 or (body.front > 0 and person.upper in OPEN):
        return
    x, y = 0.3 * body.shoulder * body.turn, 0.29
    w, h = 0.6 * body.shoulder * seen, 0.06
    colour = person.print_colour
    if name == "disc":
        pen.ellipse((x, y), w * 0.9, h * 0.8, colour)
    elif name in ("square", "bar"):
        t = h if name == "square" else h * 0.4
        pen.slab(x, y - t, y + t, w, w, colour)
    elif name == "triangle":
        pen.polygon([(x, y - h), (x + w, y + h), (x - w, y + h)], colour)
    else:
        pen.limb((x - w, y), (x + w, y), 0.014, 0.014, colour)
        pen.limb((x, y - h), (x, y + h), 0.014, 0.014, colour)


def draw_bag(pen: Pen, person: Identity, body: Body, *, behind: bool) -> None:
    """The part of a bag that lies behind the trunk, or the part before it."""
    colour = person.bag_colour
    if person.bag == "backpack":
        _backpack(pen, body, colour, behind=behind)
        return
    near = person.side * body.turn < 0.35  # the bag's side is turned to the camera, or edge-on
    if behind == near:
        return
    if person.bag == "cross-body":
        x = person.side * body.front * (body.hips + 0.015)
        y = body.hip_y + 0.03
        pen.limb((-0.6 * x, 0.17), (x, y - 0.05), 0.011, 0.011, shaded(colour, 0.75))
        pen.slab(x, y - 0.06, y + 0.05, 0.062, 0.066, colour)
    elif person.bag == "tote":
        x, y = body.hands[1 if person.side * body.front > 0 else 0]
        pen.limb((x, y), (x, y + 0.04), 0.01, 0.01, shaded(colour, 0.75))
        pen.slab(x, y + 0.035, y + 0.17, 0.06, 0.07, colour)


def _backpack(pen: Pen, body: Body, colour: Colour, *, behind: bool) -> None:
    f, t, s = body.front, body.turn, body.shoulder
    x, w = -0.9 * s * t, s * (0.35 + 0.45 * abs(f))
    if behind == (f > -0.2):
        pen.slab(x, 0.2, 0.43, w, w * 0.95, colour)
        if not behind:
            pen.slab(x, 0.32, 0.41, w * 0.7, w * 0.7, shaded(colour, 0.7))
    if not behind and f > -0.2:
        for k in (-1, 1):
            if abs(t) < 0.8 or k * t < 0:
                pen.limb((k * 0.6 * s, 0.16), (k * 0.62 * s, 0.34), 0.014, 0.014, colour)
