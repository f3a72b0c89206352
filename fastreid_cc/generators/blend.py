"""Images of nobody without any training: two real ones mixed, or a part of one put into another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import BadConfig
from ..registry import GENERATORS
from .base import Drawn, Generator


@GENERATORS.register("blend")
class Blend(Generator):
    """Two real images of different people made one.

    Where CC.GENERATE.PEOPLE says who is on the images, the two are of different people, and images
    of nobody known are left out; else they are any two images, which may show one person.

    Args:
        mode: "paste": a rectangle of the second image takes the place of the first's, at the same
            place (CutMix). "mix": every pixel is a convex blend (mixup).
        least: least share of either image, of the area or of the blend; the second's is drawn
            evenly from it to 1 - least.
        height: height of the images, in pixels.
        width: width of the images, in pixels.

    Cost: two images read and written, no training. origins.csv says which two, and the share.

    Source: the two forms are those of Zhang et al., arXiv:1710.09412, and Yun et al.,
    arXiv:1905.04899, which mix labels too; as a stand-in for a GAN's images they are ours.

    >>> import tempfile
    >>> from PIL import Image
    >>> from fastreid_cc.generators.base import Photos
    >>> paths = [f"{tempfile.mkdtemp()}/{colour}.png" for colour in ("red", "blue")]
    >>> for path, colour in zip(paths, ("red", "blue")):
    ...     Image.new("RGB", (8, 16), colour).save(path)
    >>> blend = Blend(mode="mix", least=0.5, height=16, width=8)
    >>> blend.prepare(Photos(paths), seed=1)
    >>> blend.draw([0])[0].pixels[0, 0]
    array([128,   0, 128], dtype=uint8)
    """

    limits = {
        "mode": ("paste", "mix"),
        "least": "(0, 0.5]",
        "height": "[16, 1024]",
        "width": "[8, 1024]",
    }

    def __init__(
        self, *, mode: str = "paste", least: float = 0.3, height: int = 128, width: int = 64
    ) -> None:
        self.mode, self.least, self.height, self.width = mode, least, height, width

    def start(self) -> None:
        """Refuses photos in which no two people can be found."""
        people = self.photos.people
        self.rows = np.arange(len(self.photos)) if people is None else np.flatnonzero(people >= 0)
        self.who = self.rows if people is None else people[self.rows]
        if len(np.unique(self.who)) < 2:
            known = "" if people is None else f", {len(self.rows)} of them of people known"
            raise BadConfig(
                f"{self.key} joins images of two people; found {len(self.photos)} images{known},"
                f" of {len(np.unique(self.who))} person(s). Name more images, or leave"
                " CC.GENERATE.PEOPLE empty."
            )

    def draw(self, numbers: Sequence[int]) -> list[Drawn]:
        """The images of these numbers."""
        return [self._one(int(number)) for number in numbers]

    def _one(self, number: int) -> Drawn:
        rng = self.drawn_for(number)
        first = int(rng.integers(len(self.rows)))
        others = np.flatnonzero(self.who != self.who[first])
        second = int(others[rng.integers(len(others))])
        rows = [int(self.rows[place]) for place in (first, second)]
        base, other = self.photos.pixels(rows, self.height, self.width)
        share = float(rng.uniform(self.least, 1 - self.least))
        if self.mode == "mix":
            made = np.rint(base + share * (other.astype(np.float64) - base)).astype(np.uint8)
        else:
            made, share = self._pasted(base, other, share, rng)
        origins = tuple(self.photos.paths[row] for row in rows)
        return Drawn(f"blend_{number:07d}.png", made, origins, f"{share:.3f} of the second")

    def _pasted(
        self, base: np.ndarray, other: np.ndarray, share: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """A rectangle of the images' own form and of the wanted area; its share in whole pixels."""
        size = np.array(base.shape[:2])
        box = np.clip(np.rint(size * share**0.5), 1, size).astype(int)
        top, left = (int(rng.integers(room + 1)) for room in size - box)
        made = base.copy()
        part = slice(top, top + box[0]), slice(left, left + box[1])
        made[part] = other[part]
        return made, float(box.prod() / size.prod())
