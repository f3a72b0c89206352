"""Draws a person in a pose: an RGBA layer, no background.

Body coordinates: x right, y down, the top of the head at y = 0, the soles at y = 1, x = 0 the
middle of the body. `view` is the angle between the person's front and the camera: 0 = front,
180 = back, 90 = walking to the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
from PIL import Image, ImageDraw

from .identity import Colour, Identity

Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """How a person stands in one image.

    Args:
        view: degrees, 0 = front, 90 = facing right, 180 = back.
        phase: of the stride, radians.
        arm_bend: radians at the elbow.
        lean: sideways shift of the head, in body heights.
        height: body height as a share of the image height.
        centre: where the middle of the body lies, share of the image width.
        top: where the top of the head lies, share of the image height.
    """

    view: float
    phase: float
    arm_bend: float
    lean: float
    height: float
    centre: float
    top: float


class _Pen:
    """Draws in body coordinates on a canvas of pixels."""

    def __init__(self, image: Image.Image, origin: Point, scale: float) -> None:
        self.image = image
        self.origin = origin
        self.scale = scale
        self.draw = ImageDraw.Draw(image)

    def at(self, p: Point) -> Point:
        return self.origin[0] + p[0] * self.scale, self.origin[1] + p[1] * self.scale

    def polygon(self, points: list[Point], fill: Colour) -> None:
        self.draw.polygon([self.at(p) for p in points], fill=fill)

    def ellipse(self, centre: Point, rx: float, ry: float, fill: Colour) -> None:
        x, y = self.at(centre)
        rx, ry = abs(rx) * self.scale, abs(ry) * self.scale
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def limb(self, a: Point, b: Point, wa: float, wb: float, fill: Colour) -> None:
        """A tapering limb with round ends, of half-widths wa and wb."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        n = max((dx * dx + dy * dy) ** 0.5, 1e-6)
        ux, uy = -dy / n, dx / n
        self.polygon(
            [
                (a[0] + ux * wa, a[1] + uy * wa),
                (b[0] + ux * wb, b[1] + uy * wb),
                (b[0] - ux * wb, b[1] - uy * wb),
                (a[0] - ux * wa, a[1] - uy * wa),
            ],
            fill,
        )
        self.ellipse(a, wa, wa, fill)
        self.ellipse(b, wb, wb, fill)


def _shade(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, int(c * factor)) for c in colour)
    return r, g, b


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
    shape = np.broadcast_shapes(x.shape, y.shape)
    name = person.pattern
    if name == "hoops":
        mask = down
    elif name == "stripes":
        mask = across
    elif name == "checks":
        mask = across ^ down
    elif name == "dots":
        cx = np.mod(x / p, 1.0) - 0.5
        cy = np.mod(y / p, 1.0) - 0.5
        mask = cx * cx + cy * cy < 0.1
    elif name == "halves":
        mask = y > 0.1 + p
    elif name == "band":
        mask = np.abs(y - 0.04 - p) < 0.35 * p + 0.012
    elif name == "diagonal":
        mask = np.mod((x * person.side + y) / (1.5 * p), 1.0) < 0.4
    elif name == "panel":
        mask = x * person.side > 0
    else:
        mask = np.zeros((1, 1), bool)
    return np.broadcast_to(mask, shape)


def _cloth(pen: _Pen, person: Identity, mask: Image.Image, width: float, shade: float) -> None:
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


@dataclass(frozen=True)
class _Body:
    """Where the joints are in one pose."""

    front: float  # +1 seen from the front, -1 from behind
    turn: float  # +1 facing right, -1 facing left
    width: float  # how broad the trunk looks, 1 from the front
    shoulder: float
    hips: float
    hip_y: float
    feet: tuple[Point, Point]
    knees: tuple[Point, Point]
    elbows: tuple[Point, Point]
    hands: tuple[Point, Point]


def _joints(person: Identity, pose: Pose) -> _Body:
    front, turn = cos(radians(pose.view)), sin(radians(pose.view))
    width = 0.58 + 0.42 * abs(front)
    shoulder, hips = 0.108 * person.build * width, 0.078 * person.build * width
    stride = 0.42 * person.gait * sin(pose.phase)
    feet, knees, elbows, hands = [], [], [], []
    leg = 0.955 - person.hip
    for s in (-1, 1):
        swing = s * stride
        x = s * 0.55 * hips * abs(front)
        bend = 0.12 * max(0.0, -swing)
        side = turn * swing
        knee = (x + 0.5 * leg * sin(0.9 * side) + 0.05 * turn * bend, person.hip + 0.47 * leg)
        lift = 0.06 * leg * max(0.0, -swing) + 0.02 * abs(sin(swing))
        foot = (x + leg * sin(0.62 * side), 0.955 - lift)
        arm = -0.9 * swing * turn
        sx, spread = s * shoulder, s * 0.16 * abs(front)
        elbow = (sx + 0.16 * sin(arm) + 0.16 * spread, 0.185 + 0.155 * cos(arm))
        out = arm + turn * pose.arm_bend
        hand = (elbow[0] + 0.145 * sin(out) + 0.03 * spread, elbow[1] + 0.145 * cos(out))
        feet.append(foot)
        knees.append(knee)
        elbows.append(elbow)
        hands.append(hand)
    return _Body(
        front,
        turn,
        width,
        shoulder,
        hips,
        person.hip,
        (feet[0], feet[1]),
        (knees[0], knees[1]),
        (elbows[0], elbows[1]),
        (hands[0], hands[1]),
    )


def _legs(pen: _Pen, person: Identity, body: _Body) -> None:
    thick = 0.046 * (0.6 + 0.4 * person.build)
    skirt = "skirt" in person.lower
    for side, shade in ((0, 0.82), (1, 1.0)):
        hip = ((side * 2 - 1) * 0.5 * body.hips * abs(body.front), body.hip_y)
        knee, foot = body.knees[side], body.feet[side]
        thigh = _shade(person.leg_colour if skirt else person.lower_colour, shade)
        calf = thigh if person.lower == "trousers" else _shade(person.leg_colour, shade)
        pen.limb(hip, knee, thick * 1.15, thick * 0.86, thigh)
        pen.limb(knee, foot, thick * 0.8, thick * 0.58, calf)
        if person.seam_colour is not None:
            pen.limb(hip, knee, 0.012, 0.012, _shade(person.seam_colour, shade))
            pen.limb(knee, foot, 0.012, 0.012, _shade(person.seam_colour, shade))
        shoe = _shade(person.shoe_colour, shade)
        toe = (foot[0] + 0.045 * body.turn, foot[1] + 0.02)
        if person.boots:
            top = (0.6 * foot[0] + 0.4 * knee[0], 0.6 * foot[1] + 0.4 * knee[1])
            pen.limb(top, foot, thick * 0.86, thick * 0.74, shoe)
        pen.limb((foot[0], foot[1] + 0.012), toe, 0.024, 0.02, shoe)
    if skirt:
        hem = 0.73 if person.lower == "skirt" else 0.88
        flare = body.hips * 1.5 + 0.02
        h = body.hips * 1.05
        pen.polygon(
            [(-h, body.hip_y - 0.06), (h, body.hip_y - 0.06), (flare, hem), (-flare, hem)],
            person.lower_colour,
        )


def _arm(pen: _Pen, person: Identity, body: _Body, side: int, shade: float) -> None:
    thick = 0.031 * (0.6 + 0.4 * person.build)
    shoulder = ((side * 2 - 1) * body.shoulder * 0.92, 0.195)
    elbow, hand = body.elbows[side], body.hands[side]
    skin = _shade(person.skin, shade)
    pen.limb(shoulder, elbow, thick * 1.1, thick * 0.95, skin)
    pen.limb(elbow, hand, thick * 0.9, thick * 0.7, skin)
    pen.ellipse(hand, 0.024, 0.027, skin)
    if person.upper == "sleeveless":
        return
    mask = Image.new("L", pen.image.size)
    sleeve = _Pen(mask, pen.origin, pen.scale)
    sleeve.limb(shoulder, elbow, thick * 1.3, thick * 1.1, 255)  # type: ignore[arg-type]
    if person.upper != "tee":
        sleeve.limb(elbow, hand, thick * 1.1, thick * 0.9, 255)  # type: ignore[arg-type]
    _cloth(pen, person, mask, body.width, shade)


def _trunk(pen: _Pen, person: Identity, body: _Body) -> None:
    mask = Image.new("L", pen.image.size)
    s, h = body.shoulder, body.hips
    hem = {"coat": 0.7, "jacket": body.hip_y + 0.05}.get(person.upper, body.hip_y + 0.015)
    flare = h * (1.35 if person.upper == "coat" else 1.08)
    outline = [
        (-0.45 * s, 0.15),
        (0.45 * s, 0.15),
        (s, 0.185),
        (0.98 * s, 0.28),
        (h * 1.02, body.hip_y - 0.08),
        (flare, hem),
        (-flare, hem),
        (-h * 1.02, body.hip_y - 0.08),
        (-0.98 * s, 0.28),
        (-s, 0.185),
    ]
    ImageDraw.Draw(mask).polygon([pen.at(p) for p in outline], fill=255)
    _cloth(pen, person, mask, body.width, 1.0)
    if person.upper in ("jacket", "coat") and body.front > 0.1:  # open: a shirt shows
        x, w = 0.35 * s * body.turn, 0.3 * s * body.front
        pen.polygon(
            [(x - w, 0.155), (x + w, 0.155), (x + 0.6 * w, hem), (x - 0.6 * w, hem)],
            person.print_colour,
        )


def _print(pen: _Pen, person: Identity, body: _Body) -> None:
    name = person.front_print if body.front > 0 else person.back_print
    seen = abs(body.front)
    if name == "none" or seen < 0.25:
        return
    if body.front > 0 and person.upper in ("jacket", "coat"):
        return
    x, y = 0.3 * body.shoulder * body.turn, 0.29
    w, h = 0.6 * body.shoulder * seen, 0.06
    colour = person.print_colour
    if name == "disc":
        pen.ellipse((x, y), w * 0.9, h * 0.8, colour)
    elif name == "square":
        pen.polygon([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)], colour)
    elif name == "bar":
        t = h * 0.4
        pen.polygon([(x - w, y - t), (x + w, y - t), (x + w, y + t), (x - w, y + t)], colour)
    elif name == "triangle":
        pen.polygon([(x, y - h), (x + w, y + h), (x - w, y + h)], colour)
    else:
        pen.limb((x - w, y), (x + w, y), 0.014, 0.014, colour)
        pen.limb((x, y - h), (x, y + h), 0.014, 0.014, colour)


def _head(pen: _Pen, person: Identity, body: _Body, lean: float) -> None:
    x, y, rx, ry = lean, 0.076, 0.05, 0.066
    f, t, hair = body.front, body.turn, person.hair
    back = x - 0.022 * t
    if person.haircut == "long":
        w = 0.058 + 0.012 * abs(f)
        pen.polygon(
            [
                (back - w, 0.05),
                (back + w, 0.05),
                (back + w * 1.15, 0.23),
                (back - w * 1.15, 0.23),
            ],
            hair,
        )
    elif person.haircut == "tail":
        pen.limb((back - 0.03 * t, 0.07), (back - 0.06 * t, 0.21), 0.02, 0.012, hair)
    pen.limb((0.5 * lean, 0.13), (0.0, 0.17), 0.024, 0.03, _shade(person.skin, 0.85))
    pen.ellipse((x, y), rx, ry, person.skin)
    if person.haircut != "bald":
        if f < -0.3:
            pen.ellipse((x, y - 0.006), rx * 1.08, ry * 1.02, hair)
            if person.haircut == "long":
                w = 0.062
                pen.polygon([(x - w, 0.06), (x + w, 0.06), (x + w, 0.25), (x - w, 0.25)], hair)
            elif person.haircut == "tail":
                pen.limb((x, 0.08), (x, 0.24), 0.024, 0.014, hair)
        else:
            pen.ellipse((back, y - 0.026), rx * 1.1, ry * 0.72, hair)
        if person.haircut == "bun":
            pen.ellipse((x - 0.04 * t, 0.008 + 0.03 * abs(t)), 0.03, 0.028, hair)
    colour = person.hat_colour
    if person.hat == "beanie":
        pen.ellipse((x, y - 0.03), rx * 1.15, ry * 0.72, colour)
    elif person.hat == "cap":
        pen.ellipse((x, y - 0.034), rx * 1.12, ry * 0.62, colour)
        if f > -0.3:
            pen.limb((x, y - 0.022), (x + 0.07 * t, y - 0.018), 0.012, 0.01, _shade(colour, 0.8))
    elif person.hat == "brim":
        pen.ellipse((x, y - 0.036), rx * 1.05, ry * 0.7, colour)
        pen.ellipse((x, y - 0.016), rx * 1.9, 0.016, _shade(colour, 0.85))


def _bag(pen: _Pen, person: Identity, body: _Body, *, behind: bool) -> None:
    """The part of a bag that lies behind the trunk, or the part before it."""
    f, t, colour, s = body.front, body.turn, person.bag_colour, body.shoulder
    if person.bag == "backpack":
        x, w = -0.9 * s * t, s * (0.35 + 0.45 * abs(f))
        box = [(x - w, 0.2), (x + w, 0.2), (x + w * 0.95, 0.43), (x - w * 0.95, 0.43)]
        if behind == (f > -0.2):
            pen.polygon(box, colour)
            if not behind:
                pen.polygon(
                    [
                        (x - w * 0.7, 0.32),
                        (x + w * 0.7, 0.32),
                        (x + w * 0.7, 0.41),
                        (x - w * 0.7, 0.41),
                    ],
                    _shade(colour, 0.7),
                )
        if not behind and f > -0.2:
            for k in (-1, 1):
                if abs(t) < 0.8 or k * t < 0:
                    pen.limb((k * 0.6 * s, 0.16), (k * 0.62 * s, 0.34), 0.014, 0.014, colour)
        return
    near = person.side * t < 0.35  # the bag's side is turned to the camera, or edge-on
    if person.bag == "cross-body" and behind != near:
        x = person.side * f * (body.hips + 0.015)
        y = body.hip_y + 0.03
        pen.limb((-0.6 * x, 0.17), (x, y - 0.05), 0.011, 0.011, _shade(colour, 0.75))
        pen.polygon(
            [
                (x - 0.062, y - 0.06),
                (x + 0.062, y - 0.06),
                (x + 0.066, y + 0.05),
                (x - 0.066, y + 0.05),
            ],
            colour,
        )
    elif person.bag == "tote" and behind != near:
        index = 1 if person.side * f > 0 else 0
        hx, hy = body.hands[index]
        pen.limb((hx, hy), (hx, hy + 0.04), 0.01, 0.01, _shade(colour, 0.75))
        pen.polygon(
            [
                (hx - 0.06, hy + 0.035),
                (hx + 0.06, hy + 0.035),
                (hx + 0.07, hy + 0.17),
                (hx - 0.07, hy + 0.17),
            ],
            colour,
        )


def draw_figure(person: Identity, pose: Pose, height: int, width: int) -> Image.Image:
    """A person on a transparent ground, smoothed by drawing at twice the size.

    Returns:
        A PIL image of mode "RGBa" (colours multiplied by alpha), `width` x `height`.

    Cost: about 1 ms at 128x64.
    """
    canvas = Image.new("RGBA", (2 * width, 2 * height))
    scale = 2 * height * pose.height
    pen = _Pen(canvas, (2 * width * pose.centre, 2 * height * pose.top), scale)
    body = _joints(person, pose)
    far = 0 if body.turn >= 0 else 1  # the arm behind the trunk when seen from the side
    sideways = abs(body.front) < 0.75
    _bag(pen, person, body, behind=True)
    if sideways:
        _arm(pen, person, body, far, 0.75)
    _legs(pen, person, body)
    _trunk(pen, person, body)
    _print(pen, person, body)
    if not sideways:
        _arm(pen, person, body, far, 0.88)
    _head(pen, person, body, pose.lean)
    _arm(pen, person, body, 1 - far, 0.92)
    _bag(pen, person, body, behind=False)
    return canvas.convert("RGBa").reduce(2)
