"""Resizing without distortion: the image fits into the frame, the rest is one colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import BadConfig

PADDING = "padding"  # the note of an exported file that holds the fill
LOOKED_AT = 256  # images whose size is read before a training
SAME = 0.01  # ratios that differ by less, relatively, are one


class FitAndPad:
    """Scales an image to fit into a frame, keeping its ratio, and centres it there.

    Args:
        size: (height, width) of the frame.
        fill: colour of the rest, (red, green, blue) in 0..255.

    A PIL image in (converted to RGB if it is not), one of `size` out; an image of the frame's ratio
    is resized as fastreid's own transform does it, bicubically. Cost: that of the resize.

    >>> FitAndPad((8, 4), (0, 0, 0))(Image.new("RGB", (2, 2), "white")).getbbox()
    (0, 2, 4, 6)
    """

    def __init__(self, size: Sequence[int], fill: Sequence[int]) -> None:
        self.size, self.fill = tuple(size), tuple(fill)

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image in its frame."""
        image = image if image.mode == "RGB" else image.convert("RGB")
        height, width = self.size
        scale = min(height / image.height, width / image.width)
        fitted = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        resized = image.resize(fitted, Image.Resampling.BICUBIC)
        if fitted == (width, height):
            return resized
        frame = Image.new("RGB", (width, height), self.fill)
        frame.paste(resized, ((width - fitted[0]) // 2, (height - fitted[1]) // 2))
        return frame


def refuse_one_ratio(paths: Sequence[str], size: Sequence[int]) -> None:
    """Raises BadConfig if images that are to keep their ratios all have the same one.

    Padding would then shrink every person alike and keep nothing apart.

    Args:
        paths: N images; the headers of at most 256, evenly spread, are read.
        size: INPUT.SIZE_TRAIN.
    """
    rows = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), LOOKED_AT)).astype(int))
    sizes = []
    for row in rows:
        with Image.open(paths[row]) as image:
            sizes.append(image.size)
    ratios = np.array([width / height for width, height in sizes])
    if not len(ratios) or ratios.max() > ratios.min() * (1 + SAME):
        return
    width, height = sizes[0]
    raise BadConfig(
        f"INPUT.KEEP_RATIO=True: all of the {len(rows)} images looked at, of {len(paths):,}, have"
        f" one ratio (the first is {height} high, {width} wide), so there is nothing to keep apart."
        f" Set it False, with an INPUT.SIZE_TRAIN and SIZE_TEST of that ratio if {tuple(size)}"
        " distorts too much."
    )
