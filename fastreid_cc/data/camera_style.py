"""The same picture as another camera would have taken it: ready-made images, or colour statistics.

ECN's camera invariance asks that an image and its camera-style transfers be one class. Transfers
made offline (CamStyle) are used where the user has them; the substitute needs camera ids alone.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..registry import Part
from .ready_made import ReadyMade, open_as

#: A transfer to the image's own camera is none.
_FAKE = re.compile(r"^(?P<stem>.+)_fake_(?:(?P<source>\d+)to(?!(?P=source)$))?(?P<target>\d+)$")
_SMALL = (16, 32)  # width, height: enough for means


class StyleFolder:
    """Transfers from a folder, of any format.

    Named `<stem>_fake_<c>to<c'>.jpg` (Market, Duke) or `<stem>_fake_<c'>.jpg` (MSMT17). A call
    gives, with equal probability, the image itself or one of its transfers; with a transfer
    to every other camera, each of the C cameras comes with probability 1/C.

    Args:
        folder: searched with its sub-folders.
        paths: of the images to be styled.
    Raises:
        ValueError: if there is no such folder or it has no transfer of any of the images.

    Source: Zhong et al., Camera Style Adaptation, CVPR 2018 (names of its archives).
    """

    def __init__(self, folder: str, paths: Sequence[str]) -> None:
        listed = ReadyMade(
            folder,
            paths,
            key="CC.CAMSTYLE.FOLDER",
            pattern=_FAKE,
            example="{stem}_fake_1to2.jpg",
            what=("transfer", "Without such images set CC.CAMSTYLE.MODE statistics."),
        )
        self.fakes = {stem: [path for _, path in found] for stem, found in listed.found.items()}
        self.num_without = listed.num_without

    def __call__(self, image: Image.Image, path: str, camera: int) -> Image.Image:
        """`image`, or one of its transfers, scaled to its size; from Python's global `random`."""
        choices = self.fakes.get(Path(path).stem, [])
        pick = random.randrange(len(choices) + 1)
        if pick == len(choices):
            return image
        return open_as(choices[pick], image)


class StyleStatistics(Part):
    """Substitute: colours moved from the statistics of the image's camera to those of another.

    A camera c' is drawn with probability 1/C each; the own camera leaves the image alone. Otherwise
    each channel becomes (x - mean_c) / std_c * std_c' + mean_c', clipped, with mean and standard
    deviation over pixels of images of the camera. A light or colour cast is carried over, what a
    trained translator does beyond that is not.

    Args:
        paths: N images.
        cameras: i64 [N].
        seed: of the choice of the images measured.
        images_per_camera: images measured per camera with MODE statistics, chosen by CC.SEED.

    Cost: reads C · images_per_camera images once; 0.3 ms per 128x64 image and call.
    """

    key = "CC.CAMSTYLE"
    limits = {"images_per_camera": "[1, inf)"}

    def __init__(
        self,
        paths: Sequence[str],
        cameras: np.ndarray,
        seed: int = 1,
        *,
        images_per_camera: int = 64,
    ) -> None:
        self.names = np.unique(cameras).tolist()
        self.means, self.stds = {}, {}
        for camera in self.names:
            rows = np.flatnonzero(cameras == camera)
            generator = np.random.default_rng((seed, camera))
            rows = np.sort(generator.permutation(rows)[:images_per_camera])
            pixels = np.concatenate([_pixels(paths[row]) for row in rows.tolist()])
            self.means[camera] = pixels.mean(0)
            self.stds[camera] = pixels.std(0) + 1.0

    def __call__(self, image: Image.Image, path: str, camera: int) -> Image.Image:
        """The image in the colours of a random camera; from Python's global `random`."""
        other = self.names[random.randrange(len(self.names))]
        if other == camera or camera not in self.means:
            return image
        scale = self.stds[other] / self.stds[camera]
        table = (np.arange(256)[:, None] - self.means[camera]) * scale + self.means[other]
        levels = np.clip(np.rint(table), 0, 255).astype(np.uint8)  # [256, 3]
        return image.convert("RGB").point(levels.T.ravel().tolist())


def _pixels(path: str | os.PathLike[str]) -> np.ndarray:
    """Pixels of a small copy, f64 [pixels, 3]."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize(_SMALL, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).reshape(-1, 3)
