"""Generated views of images, in other poses: shown in training in the place of the image."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..errors import BadConfig
from ..registry import Part
from .ready_made import ReadyMade, open_as

_VIEW = re.compile(r"^(?P<stem>.+)_to_(?P<view>\d+)$")


class ViewFolder(Part):
    """Views `<stem>_to_<k>.<ending>` of images, made elsewhere by any generator.

    A call gives one of the K views with probability SHOW, each as often, else the image. Where that
    view is missing the image stands for it. Which row and which cluster an image has does not
    change.

    Args:
        paths: of the images that are trained on.
        folder: Folder of generated views of training images, <stem>_to_<k>.png, made elsewhere.
        show: Probability that a training image is shown as one of its generated views; 0 = never,
            1 = always (PN-GAN's second network).
        fuse: What is clustered without labels: the image's feature, or that and those of its views,
            joined entry by entry. The memory is filled with what is clustered.

    Attributes:
        views: names of the K views, sorted by number.
        num_missing: views that are missing, over all images.
    Raises:
        BadConfig: if there is no such folder or it has no view of any of the images.

    Source: Qian et al., Pose-Normalized Image Generation, ECCV 2018, arXiv:1712.02225 (names of the
    released code).
    """

    key = "CC.POSES"
    limits = {"show": "[0, 1]", "fuse": ("off", "max", "mean")}

    def __init__(
        self, paths: Sequence[str], *, folder: str = "", show: float = 0.0, fuse: str = "off"
    ) -> None:
        listed = ReadyMade(
            folder,
            paths,
            key=f"{self.key}.FOLDER",
            pattern=_VIEW,
            example="{stem}_to_1.png",
            what=("generated view", "The commands `poses` and `generate` make them."),
        )
        self.show, self.fuse = show, fuse
        self._of: dict[str, dict[int, str]] = {}
        for stem, pictures in listed.found.items():
            of_image = self._of[stem] = {}
            for match, path in pictures:
                number = int(match["view"])
                if number in of_image:
                    raise BadConfig(
                        f"{self.key}.FOLDER={folder!r} holds view {number} of {stem} twice:"
                        f" {of_image[number]} and {path}. Remove one."
                    )
                of_image[number] = path
        self.views = sorted({number for found in self._of.values() for number in found})
        stems = {Path(path).stem for path in paths}
        there = sum(len(found) for found in self._of.values())
        self.num_missing = len(stems) * len(self.views) - there
        self.num_without = listed.num_without

    def __call__(self, image: Image.Image, path: str, camera: int) -> Image.Image:
        """`image`, or one of its views, scaled to its size; from Python's global `random`."""
        shown, place = random.random() < self.show, random.randrange(len(self.views))
        return self.view(image, path, place) if shown else image

    def view(self, image: Image.Image, path: str, place: int) -> Image.Image:
        """The view at a place in `views`, in the image's size; the image if it is missing."""
        found = self.path_of(path, place)
        return image if found is None else open_as(found, image)

    def path_of(self, path: str, place: int) -> str | None:
        """The file of an image's view at a place in `views`; None if it is missing."""
        return self._of.get(Path(path).stem, {}).get(self.views[place])
