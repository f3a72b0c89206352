"""Draws a person in a pose: an RGBA layer, no background."""

from __future__ import annotations

from PIL import Image

from .body import Body, Pen, Pose, joints, shaded
from .clothes import arm_thickness, draw_bag, draw_print, draw_sleeve, draw_upper
from .identity import Identity


def draw_figure(person: Identity, pose: Pose, height: int, width: int) -> Image.Image:
    """A person on a transparent ground, smoothed by drawing at twice the size.

    Returns:
        A PIL image of mode "RGBa" (colours multiplied by alpha), `width` x `height`.

    Cost: about 1 ms at 128x64.
    """
    canvas = Image.new("RGBA", (2 * width, 2 * height))
    scale = 2 * height * pose.height
    pen = Pen(canvas, (2 * width * pose.centre, 2 * height * pose.top), scale)
    body = joints(person, pose)
    far = 0 if body.turn >= 0 else 1  # the arm behind the trunk when seen from the side
    sideways = abs(body.front) < 0.75
    draw_bag(pen, person, body, behind=True)
    if sideways:
        _arm(pen, person, body, far, 0.75)
    _legs(pen, person, body)
    draw_upper(pen, person, body)
    draw_print(pen, person, body)
    if not sideways:
        _arm(pen, person, body, far, 0.88)
    _head(pen, person, body, pose.lean)
    _arm(pen, person, body, 1 - far, 0.92)
    draw_bag(pen, person, body, behind=False)
    return canvas.convert("RGBa").reduce(2)


def _legs(pen: Pen, person: Identity, body: Body) -> None:
    thick = 0.046 * (0.6 + 0.4 * person.build)
    skirt = "skirt" in person.lower
    for side, shade in ((0, 0.82), (1, 1.0)):
        hip = ((side * 2 - 1) * 0.5 * body.hips * abs(body.front), body.hip_y)
        knee, foot = body.knees[side], body.feet[side]
        thigh = shaded(person.leg_colour if skirt else person.lower_colour, shade)
        calf = thigh if person.lower == "trousers" else shaded(person.leg_colour, shade)
        pen.limb(hip, knee, thick * 1.15, thick * 0.86, thigh)
        pen.limb(knee, foot, thick * 0.8, thick * 0.58, calf)
        if person.seam_colour is not None:
            pen.limb(hip, knee, 0.012, 0.012, shaded(person.seam_colour, shade))
            pen.limb(knee, foot, 0.012, 0.012, shaded(person.seam_colour, shade))
        shoe = shaded(person.shoe_colour, shade)
        toe = (foot[0] + 0.045 * body.turn, foot[1] + 0.02)
        if person.boots:
            top = (0.6 * foot[0] + 0.4 * knee[0], 0.6 * foot[1] + 0.4 * knee[1])
            pen.limb(top, foot, thick * 0.86, thick * 0.74, shoe)
        pen.limb((foot[0], foot[1] + 0.012), toe, 0.024, 0.02, shoe)
    if skirt:
        hem = 0.73 if person.lower == "skirt" else 0.88
        waist, flare = body.hips * 1.05, body.hips * 1.5 + 0.02
        pen.slab(0, body.hip_y - 0.06, hem, waist, flare, person.lower_colour)


def _arm(pen: Pen, person: Identity, body: Body, side: int, shade: float) -> None:
    thick = arm_thickness(person)
    shoulder = ((side * 2 - 1) * body.shoulder * 0.92, 0.195)
    elbow, hand = body.elbows[side], body.hands[side]
    skin = shaded(person.skin, shade)
    pen.limb(shoulder, elbow, thick * 1.1, thick * 0.95, skin)
    pen.limb(elbow, hand, thick * 0.9, thick * 0.7, skin)
    pen.ellipse(hand, 0.024, 0.027, skin)
    draw_sleeve(pen, person, body, (shoulder, elbow, hand), shade)


def _head(pen: Pen, person: Identity, body: Body, lean: float) -> None:
    x, y, rx, ry = lean, 0.076, 0.05, 0.066
    f, t, hair = body.front, body.turn, person.hair
    back = x - 0.022 * t
    if person.haircut == "long":
        w = 0.058 + 0.012 * abs(f)
        pen.slab(back, 0.05, 0.23, w, w * 1.15, hair)
    elif person.haircut == "tail":
        pen.limb((back - 0.03 * t, 0.07), (back - 0.06 * t, 0.21), 0.02, 0.012, hair)
    pen.limb((0.5 * lean, 0.13), (0.0, 0.17), 0.024, 0.03, shaded(person.skin, 0.85))
    pen.ellipse((x, y), rx, ry, person.skin)
    if person.haircut != "bald":
        if f < -0.3:
            pen.ellipse((x, y - 0.006), rx * 1.08, ry * 1.02, hair)
            if person.haircut == "long":
                pen.slab(x, 0.06, 0.25, 0.062, 0.062, hair)
            elif person.haircut == "tail":
                pen.limb((x, 0.08), (x, 0.24), 0.024, 0.014, hair)
        else:
            pen.ellipse((back, y - 0.026), rx * 1.1, ry * 0.72, hair)
        if person.haircut == "bun":
            pen.ellipse((x - 0.04 * t, 0.008 + 0.03 * abs(t)), 0.03, 0.028, hair)
    _hat(pen, person, body, (x, y), (rx, ry))


def _hat(
    pen: Pen, person: Identity, body: Body, centre: tuple[float, float], half: tuple[float, float]
) -> None:
    (x, y), (rx, ry), colour = centre, half, person.hat_colour
    if person.hat == "beanie":
        pen.ellipse((x, y - 0.03), rx * 1.15, ry * 0.72, colour)
    elif person.hat == "cap":
        pen.ellipse((x, y - 0.034), rx * 1.12, ry * 0.62, colour)
        if body.front > -0.3:
            peak = (x + 0.07 * body.turn, y - 0.018)
            pen.limb((x, y - 0.022), peak, 0.012, 0.01, shaded(colour, 0.8))
    elif person.hat == "brim":
        pen.ellipse((x, y - 0.036), rx * 1.05, ry * 0.7, colour)
        pen.ellipse((x, y - 0.016), rx * 1.9, 0.016, shaded(colour, 0.85))
