"""Where a person's joints are in a pose, and a pen that draws in the same coordinates.

Body coordinates: x right, y down, the top of the head at y = 0, the soles at y = 1, x = 0 the
middle of the body. `view` is the angle between the person's front and the camera: 0 = front,
180 = back, 90 = walking to the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin

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


@dataclass(frozen=True)
class Body:
    """Where the joints are in one pose; of a pair the left one (negative x from the front) first.

    Args:
        front: +1 seen from the front, -1 from behind.
        turn: +1 facing right, -1 facing left.
        width: how broad the trunk looks, 1 from the front.
        shoulder, hips: half their widths.
        hip_y: height of the hip.
        feet, knees, elbows, hands: pairs of points.
    """

    front: float
    turn: float
    width: float
    shoulder: float
    hips: float
    hip_y: float
    feet: list[Point]
    knees: list[Point]
    elbows: list[Point]
    hands: list[Point]


def joints(person: Identity, pose: Pose) -> Body:
    """The joints of a person in a pose."""
    front, turn = cos(radians(pose.view)), sin(radians(pose.view))
    width = 0.58 + 0.42 * abs(front)
    shoulder, hips = 0.108 * person.build * width, 0.078 * person.build * width
    stride = 0.42 * person.gait * sin(pose.phase)
    body = Body(front, turn, width, shoulder, hips, person.hip, [], [], [], [])
    leg = 0.955 - person.hip
    for s in (-1, 1):
        swing = s * stride
        x = s * 0.55 * hips * abs(front)
        bend = 0.12 * max(0.0, -swing)
        side = turn * swing
        lift = 0.06 * leg * max(0.0, -swing) + 0.02 * abs(sin(swing))
        knee = x + 0.5 * leg * sin(0.9 * side) + 0.05 * turn * bend
        body.knees.append((knee, person.hip + 0.47 * leg))
        body.feet.append((x + leg * sin(0.62 * side), 0.955 - lift))
        arm = -0.9 * swing * turn
        sx, spread = s * shoulder, s * 0.16 * abs(front)
        elbow = (sx + 0.16 * sin(arm) + 0.16 * spread, 0.185 + 0.155 * cos(arm))
        out = arm + turn * pose.arm_bend
        body.elbows.append(elbow)
        hand = elbow[0] + 0.145 * sin(out) + 0.03 * spread
        body.hands.append((hand, elbow[1] + 0.145 * cos(out)))
    return body


class Pen:
    """Draws in body coordinates on a canvas of pixels.

    Args:
        image: the canvas, drawn on.
        origin: pixel of the point (0, 0).
        scale: pixels of a body height.
    """

    def __init__(self, image: Image.Image, origin: Point, scale: float) -> None:
        self.image, self.origin, self.scale = image, origin, scale
        self.draw = ImageDraw.Draw(image)

    def at(self, p: Point) -> Point:
        """The pixel of a point."""
        return self.origin[0] + p[0] * self.scale, self.origin[1] + p[1] * self.scale

    def polygon(self, points: list[Point], fill: Colour | int) -> None:
        """A filled polygon."""
        self.draw.polygon([self.at(p) for p in points], fill=fill)

    def slab(self, x: float, top: float, bottom: float, wt: float, wb: float, fill: Colour) -> None:
        """A trapezium about the vertical through x, of half-widths wt at the top and wb below."""
        self.polygon([(x - wt, top), (x + wt, top), (x + wb, bottom), (x - wb, bottom)], fill)

    def ellipse(self, centre: Point, rx: float, ry: float, fill: Colour | int) -> None:
        """A filled ellipse of half-axes rx and ry."""
        x, y = self.at(centre)
        rx, ry = abs(rx) * self.scale, abs(ry) * self.scale
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def limb(self, a: Point, b: Point, wa: float, wb: float, fill: Colour | int) -> None:
        """A tapering limb with round ends, of half-widths wa and wb."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        n = max((dx * dx + dy * dy) ** 0.5, 1e-6)
        ux, uy = -dy / n, dx / n
        corners = ((a, wa), (b, wb), (b, -wb), (a, -wa))
        self.polygon([(p[0] + ux * w, p[1] + uy * w) for p, w in corners], fill)
        self.ellipse(a, wa, wa, fill)
        self.ellipse(b, wb, wb, fill)


def shaded(colour: Colour, factor: float) -> Colour:
    """A colour in more (above 1) or less light."""
    r, g, b = (min(255, int(c * factor)) for c in colour)
    return r, g, b
