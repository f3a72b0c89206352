"""One picture: a person in a pose, before a camera, maybe half hidden."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from PIL import Image, ImageDraw

from .body import Pose
from .camera import Camera, background, expose
from .figure import draw_figure
from .identity import Identity

_BACKGROUND_DRAWS = 3  # random numbers that `background` takes: zoom, x, y
_FOLDS = (10, 5)  # cells of the soft folds of the light


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
    folds = Image.fromarray(rng.uniform(-1, 1, _FOLDS).astype(np.float32))
    soft = np.asarray(folds.resize((w, h), Image.Resampling.BICUBIC))
    return (1 + camera.light[0] * x + camera.light[1] * y + 0.08 * soft)[..., None]


@dataclass(frozen=True)
class Cover:
    """A post or a bush of the scene before a person; sizes in pixels.

    Args:
        corners: of a post (left, top, right, bottom) or of a bush (four points, from the top left).
        colour: of it.
    """

    corners: tuple[float, ...]
    colour: tuple[int, ...]

    def hides(self, x: float, y: float) -> bool:
        """Whether it stands before a point of the picture."""
        if len(self.corners) == 4:
            return self.corners[0] <= x <= self.corners[2]
        (x0, y0), (x1, y1) = self.corners[:2], self.corners[2:4]
        return y >= y0 + (y1 - y0) * (x - x0) / (x1 - x0)

    def draw(self, picture: np.ndarray) -> np.ndarray:
        """The picture, f32 [H, W, 3], with this before it."""
        image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        if len(self.corners) == 4:
            draw.rectangle(self.corners, fill=self.colour)
        else:
            draw.polygon(self.corners, fill=self.colour)
        return np.asarray(image, np.float32)


def sample_cover(rng: np.random.Generator, h: int, w: int) -> Cover | None:
    """What stands before the person: in 12 of 100 pictures a post or a bush."""
    kind = rng.random()
    if kind > 0.12:
        return None
    tint = rng.uniform(-35, 35, 3)
    colour = tuple(int(v) for v in np.clip(rng.uniform(40, 200) + tint, 0, 255))
    if kind < 0.06:
        x, half = rng.uniform(0.15, 0.85) * w, rng.uniform(0.05, 0.1) * w
        return Cover((x - half, 0, x + half, h), colour)
    top, tilt = rng.uniform(0.66, 0.85) * h, rng.uniform(-0.06, 0.06) * h
    return Cover((0, top + tilt, w, top - tilt, w, h, 0, h), colour)


def replay(
    person: Identity, camera: Camera, rng: np.random.Generator, height: int, width: int
) -> tuple[Pose, Cover | None]:
    """The pose and the cover that `draw_picture` draws from the same `rng`, without drawing."""
    pose = sample_pose(person, camera, rng)
    rng.random(_BACKGROUND_DRAWS + _FOLDS[0] * _FOLDS[1])
    return pose, sample_cover(rng, height, width)


def draw_picture(
    person: Identity,
    camera: Camera,
    rng: np.random.Generator,
    height: int,
    width: int,
    pose: Pose | None = None,
) -> Image.Image:
    """A picture of `person` by `camera`, RGB, `width` x `height`, before JPEG.

    All its randomness comes from `rng`. With a `pose` the person stands so, before the same piece
    of the scene in the same light, and nothing hides them. Cost: 2 to 3 ms at 128x64.
    """
    drawn = sample_pose(person, camera, rng)
    layer = np.asarray(draw_figure(person, pose or drawn, height, width), np.float32)
    alpha = layer[..., 3] / 255
    ground = background(camera, rng, height, width)
    lit = layer[..., :3] * _light(camera, alpha, rng)
    picture = ground * (1 - alpha[..., None]) + lit
    cover = sample_cover(rng, height, width)
    if cover is not None and pose is None:
        picture = cover.draw(picture)
    return expose(camera, picture, rng)
