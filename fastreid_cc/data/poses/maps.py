"""A pose as a picture: Gaussian heat maps for a network, a coloured skeleton for people."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from .keypoints import LIMBS

Colour = tuple[int, int, int]


def pose_map(
    keypoints: np.ndarray, size: tuple[int, int], sigma: float | None = None
) -> np.ndarray:
    """One heat map for each key point: exp(-d² / 2σ²), d the distance from it in pixels.

    Args:
        keypoints: f32 [..., 18, 3] in pixels of a picture of this size; where visibility is 0 the
            map is zero.
        size: (height, width) of the maps.
        sigma: in pixels; None = height / 40, 6.4 for 256 rows.
    Returns:
        f32 [..., 18, H, W] in [0, 1], at the centres of the pixels, (j + 0.5, i + 0.5).

    Cost: 18·H·W floats a pose, 0.1 ms at 128x64 (a Gaussian is a column times a row).
    """
    height, width = size
    sigma = height / 40 if sigma is None else sigma
    points = np.asarray(keypoints, np.float32)[..., None]  # [..., 18, 3, 1]
    seen = points[..., 2, :] > 0
    x = np.arange(width, dtype=np.float32) + 0.5 - points[..., 0, :]  # [..., 18, W]
    y = np.arange(height, dtype=np.float32) + 0.5 - points[..., 1, :]  # [..., 18, H]
    row, column = (np.exp(-np.square(d / sigma) / 2) for d in (x, y))
    return np.where(seen, column, 0)[..., :, None] * row[..., None, :]


def limb_colours() -> list[Colour]:
    """A colour for each of LIMBS: hues spread over the circle."""
    hues = (i / len(LIMBS) for i in range(len(LIMBS)))
    return [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(h, 1, 1)) for h in hues]  # type: ignore[misc]


def draw_skeleton(
    keypoints: np.ndarray, size: tuple[int, int], over: Image.Image | None = None
) -> Image.Image:
    """The visible limbs as coloured lines on black, or over a picture; RGB.

    Args:
        keypoints: f32 [18, 3] in pixels of a picture of this size.
        size: (height, width).
        over: a picture of any size, brought to `size` and left unchanged itself.
    """
    height, width = size
    if over is None:
        image = Image.new("RGB", (width, height))
    else:
        image = over.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    thick = max(1, round(height / 50))
    for (a, b), colour in zip(LIMBS, limb_colours(), strict=True):
        if keypoints[a, 2] > 0 and keypoints[b, 2] > 0:
            ends = [(float(keypoints[i, 0]), float(keypoints[i, 1])) for i in (a, b)]
            draw.line(ends, fill=colour, width=thick)
    radius = thick * 0.8
    for x, y, seen in keypoints.tolist():
        if seen > 0:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255))
    return image
