"""Colour-robust augmentation: what lets a network learn clothes rather than a camera's colours.

One transform on PIL images, for the place before `ToTensor`. Without labels, the augmentation says
which differences do not matter; between cameras these are colour and light first, then place and
size in the frame, background and what hides the person.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from ..registry import Part

_LEVELS = np.linspace(0, 1, 256)[:, None]  # [256, 1]


@dataclass(frozen=True, kw_only=True)
class ColorRobust(Part):
    """Changes colour, light, sharpness, frame, background and visibility of an image at random.

    Args:
        prob: share of images whose colours change.
        gamma: gamma exp(+-x), shared by the channels; each channel's own is half as wide.
        gain: gain exp(+-x) of each channel.
        bias: bias +-x of each channel, share of full scale.
        brightness: gain exp(+-x) common to the channels.
        shade: light rises or falls across the picture, gain exp(+-x) at the edges.
        gray_prob: share of images turned grey.
        blur_prob: share of images blurred.
        blur_radius: largest Gaussian radius, in pixels of the training size.
        flip_prob: share of images mirrored. Set INPUT.FLIP.ENABLED False beside it.
        scale: zoom exp(+-x) of the picture.
        shift: shift +-x, share of width and height.
        margin_prob: share of images whose left and right margins get another background.
        margin: widest margin replaced on each side, share of the width.
        erase_prob: share of images with a rectangle erased.
        erase_area: largest rectangle erased, share of the area.

    Called with a PIL image of mode RGB, or u8 [H, W, 3]; gives the same kind and size, and leaves
    the input alone. All randomness comes from Python's global `random`, as in fastreid's own
    transforms; whoever seeds it per image (our data set does) gets the same image on any number
    of workers.

    One table per channel (gamma, gain and bias, clipped), then a ramp of light. Cost: 0.25 ms at
    64x32, 0.5 ms at 128x64.

    Background margins are replaced by noise of a random colour and grain, not by those of another
    image: an image then depends on itself and its seed alone, not on what a worker saw before.
    """

    key = "INPUT.COLOR_ROBUST"
    limits = {
        **dict.fromkeys(
            ("gamma", "gain", "brightness", "shade", "blur_radius", "scale"), "[0, inf)"
        ),
        **dict.fromkeys(("prob", "gray_prob", "blur_prob", "flip_prob", "bias", "shift"), "[0, 1]"),
        **dict.fromkeys(("margin_prob", "erase_prob", "erase_area"), "[0, 1]"),
        "margin": "[0, 0.5]",
    }

    prob: float = 0.9
    gamma: float = 0.5
    gain: float = 0.25
    bias: float = 0.08
    brightness: float = 0.25
    shade: float = 0.5
    gray_prob: float = 0.0
    blur_prob: float = 0.3
    blur_radius: float = 1.2
    flip_prob: float = 0.5
    scale: float = 0.12
    shift: float = 0.06
    margin_prob: float = 0.4
    margin: float = 0.22
    erase_prob: float = 0.4
    erase_area: float = 0.2

    def __call__(self, image: Any) -> Any:
        """The changed image; see the class."""
        is_array = isinstance(image, np.ndarray)
        picture = Image.fromarray(image) if is_array else image
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        picture = self._frame(picture)
        if random.random() < self.blur_prob:
            picture = picture.filter(
                ImageFilter.GaussianBlur(random.uniform(0.1, 1.0) * self.blur_radius)
            )
        pixels = np.array(picture)
        if random.random() < self.margin_prob:
            self._margins(pixels)
        if random.random() < self.prob:
            pixels = self._shade(self._colours(pixels))
        if random.random() < self.gray_prob:
            pixels[:] = (pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]
        if random.random() < self.erase_prob:
            self._erase(pixels)
        return pixels if is_array else Image.fromarray(pixels)

    def _frame(self, picture: Image.Image) -> Image.Image:
        """Mirror, zoom and shift; what comes into view is a random grey."""
        flip = random.random() < self.flip_prob
        zoom = math.exp(random.uniform(-self.scale, self.scale))
        dx, dy = (random.uniform(-self.shift, self.shift) for _ in range(2))
        grey = random.randrange(256)
        if zoom == 1 and dx == 0 and dy == 0:
            return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture
        w, h = picture.size
        sign = -1 if flip else 1
        x = w / 2 - sign * (w / 2) / zoom + dx * w
        y = h / 2 - (h / 2) / zoom + dy * h
        return picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            (sign / zoom, 0.0, x, 0.0, 1 / zoom, y),
            Image.Resampling.BILINEAR,
            fillcolor=(grey, grey, grey),
        )

    def _colours(self, pixels: np.ndarray) -> np.ndarray:
        """One table per channel, clip(x^gamma · gain + bias), the gain with a part common to all.

        Not by torchvision: adjust_gamma and adjust_brightness of each channel round in between, so
        52 % of the bytes differ, and take 0.87 ms instead of 0.24 ms (128x64, one core).
        """
        draw = random.uniform
        shared, common = draw(-self.gamma, self.gamma), draw(-self.brightness, self.brightness)
        gamma = np.exp([shared + 0.5 * draw(-self.gamma, self.gamma) for _ in range(3)])
        gain = np.exp([common + draw(-self.gain, self.gain) for _ in range(3)])
        bias = np.array([draw(-self.bias, self.bias) for _ in range(3)])
        table = np.clip(_LEVELS**gamma * gain + bias, 0, 1) * 255  # [256, 3]
        return (table + 0.5).astype(np.uint8)[pixels, np.arange(3)]

    def _shade(self, pixels: np.ndarray) -> np.ndarray:
        """A ramp of light across the picture, the same for all channels, clipped."""
        h, w = pixels.shape[:2]
        across, down = (random.uniform(-self.shade, self.shade) for _ in range(2))
        x = np.exp(across * np.linspace(-1, 1, w, dtype=np.float32))
        y = np.exp(down * np.linspace(-1, 1, h, dtype=np.float32))
        return np.minimum(pixels * (y[:, None] * x)[..., None], 255).astype(np.uint8)

    def _noise(self, h: int, w: int) -> np.ndarray:
        """A patch of one colour with grain, u8 [h, w, 3]."""
        rng = np.random.Generator(np.random.PCG64(random.getrandbits(64)))
        colour = rng.uniform(20, 235, 3)
        contrast = rng.uniform(0, 60)
        cell = int(rng.integers(1, 9))
        grain = rng.uniform(-1, 1, (h // cell + 1, w // cell + 1))
        grain = grain.repeat(cell, 0).repeat(cell, 1)[:h, :w, None]
        return np.clip(colour + contrast * grain, 0, 255).astype(np.uint8)

    def _margins(self, pixels: np.ndarray) -> None:
        """Replaces the outer columns, where background is likelier than person; in place."""
        h, w = pixels.shape[:2]
        left, right = (round(random.uniform(0, self.margin) * w) for _ in range(2))
        ground = self._noise(h, left + right)
        pixels[:, :left] = ground[:, :left]
        pixels[:, w - right :] = ground[:, left:]

    def _erase(self, pixels: np.ndarray) -> None:
        """Fills a random rectangle with noise; in place. Aspect 0.3 to 3.3, log-uniform."""
        rows, columns = rectangle(pixels.shape[0], pixels.shape[1], self.erase_area)
        patch = pixels[rows, columns]
        patch[:] = self._noise(patch.shape[0], patch.shape[1])


def rectangle(height: int, width: int, largest: float) -> tuple[slice, slice]:
    """Rows and columns of a random rectangle within a picture; draws from Python's `random`.

    Its area is uniform between 2 % and `largest`, a share of the picture's; its aspect log-uniform
    from 0.3 to 3.3, cut where the picture ends.
    """
    area = random.uniform(0.02, max(0.02, largest)) * height * width
    aspect = math.exp(random.uniform(-1.2, 1.2))
    h = min(height, max(1, round(math.sqrt(area * aspect))))
    w = min(width, max(1, round(math.sqrt(area / aspect))))
    y, x = random.randint(0, height - h), random.randint(0, width - w)
    return slice(y, y + h), slice(x, x + w)
