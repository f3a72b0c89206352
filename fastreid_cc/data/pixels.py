"""Pixels of an image file as the test transform gives them, and their normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from .fit_and_pad import FitAndPad

#: What trackers subtract and divide by: of red, green, blue in 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NORMALISED = "normalised"  # the note of an exported file that takes (x / 255 - mean) / std


def read_pixels(path: str, size: Sequence[int], fill: Sequence[int] = ()) -> np.ndarray:
    """f32 [3, H, W], RGB from 0 to 255: an image as the test transform gives it.

    With `fill`, (red, green, blue), as under INPUT.KEEP_RATIO.
    """
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    if fill:
        resized = FitAndPad(size, fill)(image)
    else:
        resized = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float32).transpose(2, 0, 1)


def normalised(pixels: np.ndarray) -> np.ndarray:
    """f32 [..., 3, H, W]: (x / 255 - mean) / std by ImageNet's figures, of pixels from 0 to 255."""
    figures = np.array([IMAGENET_MEAN, IMAGENET_STD], np.float32)
    mean, std = figures.reshape(2, 3, 1, 1)
    return np.asarray((pixels / np.float32(255) - mean) / std)
