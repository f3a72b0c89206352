"""One picture: a person in a pose, before a camera, maybe half hidden."""

from __future__ import annotations

from math import pi

import numpy as np
from PIL import Image, ImageDraw

from .body import Pose
from .camera import Camera, background, expose
from .figure import draw_figure
from .identity import Identity


def sample_pose(person: Identity, camera: Camera, rng: np.random.Generator) -> Pose:
    """Draws a pose and the error of an imaginary person detector."""
    size = float(person.stature * rng.uniform(*camera.size))
    slack = 1 - size
    return Pose(
        view=float(camera.view + rng.normal(0, camera.view_spread)),
        phase=float(rng.uniform(0, 2 * pi)),
        arm_bend=float(rng.uniform(0.0, 0.7)),
        lean=float(rng.uniform(-0.012, 0.012)),
        height=size,
        centre=float(0.5 + rng.normal(0, camera.shift)),
        top=float(slack * 0.5 + rng.normal(0, 0.015)),
    )


def _light(camera: Camera, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Factor of the light on the body, f32 [H, W, 1]: the camera's direction and soft folds."""
    h, w = alpha.shape
    x = np.linspace(-1.4, 1.4, w, dtype=np.float32)[None]
    y = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    folds = Image.fromarray(rng.uniform(-1, 1, (10, 5)).astype(np.float32))
    soft = np.asarray(folds.resize((w, h), Image.Resampling.BICUBIC))
    return (1 + camera.light[0] * x + camera.light[1] * y + 0.08 * soft)[..., None]


def _occlude(picture: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Puts a post or a bush of the scene before one person in five."""
    h, w = picture.shape[:2]
    kind = rng.random()
    if kind > 0.12:
        return picture
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    tint = rng.uniform(-35, 35, 3)
    colour = tuple(int(v) for v in np.clip(rng.uniform(40, 200) + tint, 0, 255))
    if kind < 0.06:
        x, half = rng.uniform(0.15, 0.85) * w, rng.uniform(0.05, 0.1) * w
        draw.rectangle((x - half, 0, x + half, h), fill=colour)
    else:
        top, tilt = rng.uniform(0.66, 0.85) * h, rng.uniform(-0.06, 0.06) * h
        draw.polygon([(0, top + tilt), (w, top - tilt), (w, h), (0, h)], fill=colour)
    return np.asarray(image, np.float32)


def draw_picture(
    person: Identity, camera: Camera, rng: np.random.Generator, height: int, width: int
) -> Image.Image:
    """A picture of `person` by `camera`, RGB, `width` x `height`, before JPEG.

    All its randomness comes from `rng`. Cost: 2 to 3 ms at 128x64.
    """
    pose = sample_pose(person, camera, rng)
    layer = np.asarray(draw_figure(person, pose, height, width), np.float32)
    alpha = layer[..., 3] / 255
    ground = background(camera, rng, height, width)
    lit = layer[..., :3] * _light(camera, alpha, rng)
    picture = ground * (1 - alpha[..., None]) + lit
    return expose(camera, _occlude(picture, camera, rng), rng)
