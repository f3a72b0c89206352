"""Cut-out whose largest patch grows over the training."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..registry import Part
from .augment import rectangle


@dataclass(frozen=True, kw_only=True)
class CutOut(Part):
    """Covers a random rectangle of an image with noise; the largest one grows over the epochs.

    Args:
        prob: share of images with a patch.
        area: largest patch in the first epoch, share of the image's area.
        last_area: largest patch in the last epoch; in between it grows in equal steps.

    A patch's area is uniform between 2 % and the largest, its aspect log-uniform from 0.3 to 3.3,
    its place uniform within the image, its bytes uniform noise. Called with a PIL image of mode RGB
    or u8 [H, W, 3]; gives the same kind and size, and leaves the input alone. An
    `epoch_transform.EpochTransform`.

    Source: Almazan et al., Re-ID done right, arXiv:1801.05339: a patch of random noise whose
    maximum size grows. The areas 0.1 and 0.4, the growth in equal steps, and `prob` are our
    reconstruction; the paper's text does not give them.

    >>> [round(CutOut().at_epoch(epoch, 4).area, 3) for epoch in range(4)]
    [0.1, 0.2, 0.3, 0.4]
    """

    key = "INPUT.CUT_OUT"
    limits = dict.fromkeys(("prob", "area", "last_area"), "[0, 1]")

    prob: float = 0.5
    area: float = 0.1
    last_area: float = 0.4

    def at_epoch(self, epoch: int, num_epochs: int) -> CutOut:
        """The one whose largest patch is that of `epoch`."""
        share = epoch / max(num_epochs - 1, 1)
        area = self.area + (self.last_area - self.area) * share
        return dataclasses.replace(self, area=min(max(area, 0.0), 1.0))

    def __call__(self, image: Any) -> Any:
        """The image, with or without a patch; see the class."""
        if random.random() >= self.prob or not self.area:
            return image
        pixels = np.array(image)
        rows, columns = rectangle(pixels.shape[0], pixels.shape[1], self.area)
        patch = pixels[rows, columns]
        rng = np.random.Generator(np.random.PCG64(random.getrandbits(64)))
        patch[:] = rng.integers(0, 256, patch.shape, np.uint8)
        return pixels if isinstance(image, np.ndarray) else Image.fromarray(pixels)
