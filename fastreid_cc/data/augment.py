"""Colour-robust augmentation: what lets a network learn clothes rather than a camera's colours.

One transform on PIL images, for the place before `ToTensor`. Without labels, the augmentation says
which differences do not matter; between cameras these are colour and light first, then place and
size in the frame, background and what hides the person.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

#: Keys under INPUT.COLOR_ROBUST: name -> (default, one line).
AUGMENT_KEYS: dict[str, tuple[Any, str]] = {
    "ENABLED": (False, "Colour-robust augmentation of training images, before ToTensor."),
    "PROB": (0.9, "Share of images whose colours change."),
    "GAMMA": (0.5, "Gamma exp(+-x), shared by the channels; each channel's own is half as wide."),
    "GAIN": (0.25, "Channel gain exp(+-x)."),
    "BIAS": (0.08, "Channel bias +-x of full scale."),
    "BRIGHTNESS": (0.25, "Common gain exp(+-x)."),
    "SHADE": (0.5, "Light rises or falls across the picture, gain exp(+-x) at the edges."),
    "GRAY_PROB": (0.0, "Share of images turned grey."),
    "BLUR_PROB": (0.3, "Share of images blurred."),
    "BLUR_RADIUS": (1.2, "Largest Gaussian radius, pixels of the training size."),
    "FLIP_PROB": (0.5, "Share of images mirrored. Set INPUT.FLIP.ENABLED False beside it."),
    "SCALE": (0.12, "Zoom exp(+-x)."),
    "SHIFT": (0.06, "Shift +-x of width and height."),
    "MARGIN_PROB": (0.4, "Share of images whose left and right margins get another background."),
    "MARGIN": (0.22, "Widest margin replaced, share of the width, each side."),
    "ERASE_PROB": (0.4, "Share of images with a rectangle erased."),
    "ERASE_AREA": (0.2, "Largest rectangle, share of the area."),
}

_LEVELS = np.linspace(0, 1, 256)[:, None]  # [256, 1]


class ColorRobust:
    """Changes colour, light, sharpness, frame, background and visibility of an image at random.

    Args:
        prob, gamma, gain, bias, brightness, gray_prob, blur_prob, blur_radius, flip_prob, scale,
        shift, margin_prob, margin, erase_prob, erase_area: see `AUGMENT_KEYS`.

    Called with a PIL image of mode RGB, or u8 [H, W, 3]; gives the same kind and size, and leaves
    the input alone. All randomness comes from Python's global `random`, as in fastreid's own
    transforms; whoever seeds it per image (our data set does) gets the same image on any number
    of workers.

    One table per channel (gamma, gain and bias, clipped), then a ramp of light. Cost: 0.25 ms at
    64x32, 0.5 ms at 128x64.

    Background margins are replaced by noise of a random colour and grain, not by those of another
    image: an image then depends on itself and its seed alone, not on what a worker saw before.
    """

    def __init__(
        self,
        *,
        prob: float = AUGMENT_KEYS["PROB"][0],
        gamma: float = AUGMENT_KEYS["GAMMA"][0],
        gain: float = AUGMENT_KEYS["GAIN"][0],
        bias: float = AUGMENT_KEYS["BIAS"][0],
        brightness: float = AUGMENT_KEYS["BRIGHTNESS"][0],
        shade: float = AUGMENT_KEYS["SHADE"][0],
        gray_prob: float = AUGMENT_KEYS["GRAY_PROB"][0],
        blur_prob: float = AUGMENT_KEYS["BLUR_PROB"][0],
        blur_radius: float = AUGMENT_KEYS["BLUR_RADIUS"][0],
        flip_prob: float = AUGMENT_KEYS["FLIP_PROB"][0],
        scale: float = AUGMENT_KEYS["SCALE"][0],
        shift: float = AUGMENT_KEYS["SHIFT"][0],
        margin_prob: float = AUGMENT_KEYS["MARGIN_PROB"][0],
        margin: float = AUGMENT_KEYS["MARGIN"][0],
        erase_prob: float = AUGMENT_KEYS["ERASE_PROB"][0],
        erase_area: float = AUGMENT_KEYS["ERASE_AREA"][0],
    ) -> None:
        values = {k: v for k, v in locals().items() if k != "self"}
        one = {"bias", "margin", "erase_area", "shift"}
        faults = []
        for name, value in values.items():
            high = 0.5 if name == "margin" else 1.0 if name in one or "prob" in name else math.inf
            if not 0 <= value <= high:
                key = f"INPUT.COLOR_ROBUST.{name.upper()}"
                faults.append(f"{key}={value} must lie in [0, {high}].")
        if faults:
            raise ValueError("\n".join(faults))
        self.values = values
        self.prob, self.gamma, self.gain, self.bias = prob, gamma, gain, bias
        self.brightness, self.shade, self.gray_prob = brightness, shade, gray_prob
        self.blur_prob, self.blur_radius, self.flip_prob = blur_prob, blur_radius, flip_prob
        self.scale, self.shift = scale, shift
        self.margin_prob, self.margin = margin_prob, margin
        self.erase_prob, self.erase_area = erase_prob, erase_area

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
        dx = random.uniform(-self.shift, self.shift)
        dy = random.uniform(-self.shift, self.shift)
        grey = random.randrange(256)
        if zoom == 1 and dx == 0 and dy == 0:
            return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture
        w, h = picture.size
        sign = -1 if flip else 1
        matrix = (
            sign / zoom,
            0.0,
            w / 2 - sign * (w / 2) / zoom + dx * w,
            0.0,
            1 / zoom,
            h / 2 - (h / 2) / zoom + dy * h,
        )
        return picture.transform(
            (w, h),
            Image.Transform.AFFINE,
            matrix,
            Image.Resampling.BILINEAR,
            fillcolor=(grey, grey, grey),
        )

    def _colours(self, pixels: np.ndarray) -> np.ndarray:
        """One table per channel: (x^gamma · gain + bias) · brightness, clipped."""
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
        left = round(random.uniform(0, self.margin) * w)
        right = round(random.uniform(0, self.margin) * w)
        ground = self._noise(h, left + right)
        pixels[:, :left] = ground[:, :left]
        pixels[:, w - right :] = ground[:, left:]

    def _erase(self, pixels: np.ndarray) -> None:
        """Fills a random rectangle with noise; in place. Aspect 0.3 to 3.3, log-uniform."""
        h, w = pixels.shape[:2]
        area = random.uniform(0.02, max(0.02, self.erase_area)) * h * w
        aspect = math.exp(random.uniform(-1.2, 1.2))
        eh = min(h, max(1, round(math.sqrt(area * aspect))))
        ew = min(w, max(1, round(math.sqrt(area / aspect))))
        y, x = random.randint(0, h - eh), random.randint(0, w - ew)
        pixels[y : y + eh, x : x + ew] = self._noise(eh, ew)

    def __repr__(self) -> str:
        text = ", ".join(f"{k}={v}" for k, v in self.values.items())
        return f"{type(self).__name__}({text})"
