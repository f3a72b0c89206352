"""What a camera does to a picture, and the scene it looks at.

The response is deliberately of another form than the training augmentation (gamma, channel gain and
bias, brightness): monotone tone curves with several knots per channel, a cross-channel matrix,
vignetting, sensor noise, lost resolution and JPEG. So a number measured here is not the reward for
knowing the simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

import numpy as np
from PIL import Image, ImageDraw
from scipy.interpolate import PchipInterpolator

from .style import WORLD, Style

LEVELS = 1024


@dataclass(frozen=True)
class Camera:
    """One camera and its scene.

    Args:
        tone: f32 [3, 1024], tone curve of each channel, 0..1 to 0..255, rising.
        matrix: f32 [3, 3], white balance and cross-talk; rows are output channels.
        vignette: f32 [H, W, 1], factor of each pixel.
        noise: standard deviation of the sensor noise at mid grey, 0..1.
        resolution: share of the pixels across that the sensor really has, 0..1.
        quality: of the JPEG file, 1..95.
        light: (x, y), direction and strength of the light on a body.
        scene: RGB panorama, wider and higher than a picture.
        view, view_spread: the camera's usual viewing angle of people, degrees, and its spread.
        size, shift: how large people are in its pictures, and how far off the middle.
    """

    tone: np.ndarray
    matrix: np.ndarray
    vignette: np.ndarray
    noise: float
    resolution: float
    quality: int
    light: tuple[float, float]
    scene: Image.Image
    view: float
    view_spread: float
    size: tuple[float, float]
    shift: float


def _smooth(rng: np.random.Generator, h: int, w: int, cells: int) -> np.ndarray:
    """Soft noise in -1..1, f32 [h, w], about `cells` bumps across the shorter side."""
    n = max(2, cells)
    shape = (max(2, round(n * h / min(h, w))), max(2, round(n * w / min(h, w))))
    small = Image.fromarray(rng.uniform(-1, 1, shape).astype(np.float32))
    return np.asarray(small.resize((w, h), Image.Resampling.BICUBIC))


def _scene(rng: np.random.Generator, height: int, width: int, level: float) -> Image.Image:
    """A street: wall, ground, tiles, posts and patches; six pictures wide. `level`: 0 dark..1."""
    h, w = round(1.4 * height), 6 * width
    wall = 45 + 165 * level + rng.uniform(-35, 35, (1, 3))
    ground = 55 + 140 * level + rng.uniform(-25, 25, (1, 1))
    wall = 0.55 * wall + 0.45 * wall.mean()
    floor = ground * (1 + rng.uniform(-0.12, 0.12, (1, 3)))
    horizon = int(h * rng.uniform(0.35, 0.7))
    picture = np.empty((h, w, 3), np.float32)
    picture[:horizon], picture[horizon:] = wall, floor
    grain = 26 * _smooth(rng, h, w, int(rng.integers(3, 9)))
    grain += 16 * _smooth(rng, h, w, int(rng.integers(20, 60)))
    picture += grain[..., None]
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    pitch = int(rng.integers(h // 12, h // 4))
    line = tuple(int(v) for v in np.clip(wall[0] * rng.uniform(0.6, 1.3), 0, 255))
    if rng.random() < 0.6:
        for y in range(pitch // 2, horizon, pitch):
            draw.line((0, y, w, y), fill=line, width=max(1, h // 90))
    if rng.random() < 0.6:
        for x in range(0, w, pitch):
            draw.line((x, 0, x, horizon), fill=line, width=max(1, h // 90))
    for _ in range(int(rng.integers(8, 18))):
        tint = rng.uniform(-70, 70, 3)
        c = tuple(int(v) for v in np.clip(rng.uniform(40, 215) + tint, 0, 255))
        left, wide = rng.uniform(0, w), rng.uniform(0.1, 0.9) * width
        top = rng.uniform(0, horizon) if rng.random() < 0.7 else rng.uniform(horizon, h)
        draw.rectangle((left, top, left + wide, top + rng.uniform(0.08, 0.5) * h), fill=c)
    return image


def _tone(rng: np.random.Generator, bends: tuple[float, float]) -> np.ndarray:
    """Three rising curves through six knots: a shared shape, and each channel its own."""
    knots = np.linspace(0, 1, 6)
    shared = rng.uniform(-bends[0], bends[0], 5)
    curves = []
    for _ in range(3):
        steps = np.exp(shared + rng.uniform(-bends[1], bends[1], 5))
        levels = np.concatenate([[0], np.cumsum(steps) / steps.sum()])
        low, high = rng.uniform(0.0, 0.14), rng.uniform(0.78, 1.0)
        curve = PchipInterpolator(knots, low + (high - low) * levels)
        curves.append(255 * curve(np.linspace(0, 1, LEVELS)))
    return np.asarray(curves, np.float32)


def _mix(rng: np.random.Generator, turn: float, fades: tuple[float, float]) -> np.ndarray:
    """How a sensor mixes channels: turns hues by `turn` degrees and fades colours."""
    angle = np.deg2rad(turn + rng.uniform(-4, 4))
    c, s = np.cos(angle), np.sin(angle) / np.sqrt(3)
    grey = np.full((3, 3), 1 / 3)
    turned = grey + c * (np.eye(3) - grey) + s * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    fade = rng.uniform(*fades)
    return fade * turned + (1 - fade) * grey


def sample_camera(
    rng: np.random.Generator, height: int, width: int, place: float = 0.5, style: Style = WORLD
) -> Camera:
    """Draws a camera and its scene; all its randomness comes from `rng`.

    Args:
        place: of the camera among those of its set, in (0, 1]. Colour cast, turn of the hues,
            brightness of the scene, light and usual view follow it, so that no draw of a world
            makes two cameras alike: else colour histograms find half of all people in one world
            and a tenth in another.
        style: of the world.
    """
    phase = 2 * np.pi * (np.arange(3) / 3 - place)
    gains = np.exp(style.cast * np.cos(phase) + rng.uniform(-0.08, 0.08, 3))
    matrix = gains[:, None] * _mix(rng, style.turn * (2 * place - 1), style.fade)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    cx, cy = rng.uniform(-0.3, 1.3), -0.4 + 1.8 * ((1.5 * place + 0.125) % 1)
    far = ((x / width - cx) * 0.6) ** 2 + (y / height - cy) ** 2
    vignette = 1 / (1 + rng.uniform(0.6, 1.0) * far) ** 2
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.45)
    return Camera(
        tone=_tone(rng, style.curves),
        matrix=matrix.astype(np.float32),
        vignette=vignette[..., None].astype(np.float32),
        noise=float(rng.uniform(*style.noise)),
        resolution=float(rng.uniform(*style.resolution)),
        quality=int(rng.integers(*style.quality)),
        light=(strength * cos(angle), 0.6 * strength * sin(angle)),
        scene=_scene(rng, height, width, (2.472 * place + 0.05) % 1 + style.level),
        view=float(style.turn_between_views * place + rng.uniform(-20, 20)),
        view_spread=style.view_spread,
        size=style.size,
        shift=style.shift,
    )


def background(camera: Camera, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A piece of the camera's scene at a random place and scale, f32 [H, W, 3] in 0..255."""
    zoom = rng.uniform(0.75, 1.25)
    w, h = width / zoom, min(height / zoom, camera.scene.height)
    x = rng.uniform(0, camera.scene.width - w)
    y = rng.uniform(0, camera.scene.height - h)
    box = (x, y, x + w, y + h)
    piece = camera.scene.resize((width, height), Image.Resampling.BILINEAR, box)
    return np.asarray(piece, np.float32)


def expose(
    camera: Camera,
    picture: np.ndarray,
    rng: np.random.Generator,
    focus: tuple[float, float] | None = None,
) -> Image.Image:
    """What the camera stores of a picture.

    Args:
        picture: f32 [H, W, 3], 0..255, not changed.
        focus: factors of resolution and light; None = drawn. A clip has the same throughout.
    Returns:
        RGB image of the same size, before JPEG.

    Order: resolution, vignetting and exposure, noise, colour matrix, tone curves. Cost: under 1 ms
    at 128x64.
    """
    height, width = picture.shape[:2]
    coarse = camera.resolution * (focus[0] if focus else rng.uniform(0.85, 1.1))
    small = (max(8, round(width * coarse)), max(8, round(height * coarse)))
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    image = image.resize(small, Image.Resampling.BOX)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    light = np.asarray(image, np.float32) * ((focus[1] if focus else rng.uniform(0.85, 1.15)) / 255)
    light = light * camera.vignette
    noise = rng.standard_normal(light.shape, np.float32)
    light += noise * (camera.noise * (0.4 + np.sqrt(light)))
    light = light @ camera.matrix.T
    level = np.clip(light * (LEVELS - 1), 0, LEVELS - 1).astype(np.intp)
    stored = camera.tone[np.arange(3), level]  # each channel by its own curve
    return Image.fromarray(stored.astype(np.uint8))
