"""Writes a synthetic re-ID data set in Market-1501 layout, once, and finds it again."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...files import make_folder_atomically
from ...registry import Part
from .camera import sample_camera
from .identity import sample_identity
from .picture import draw_picture
from .style import STYLES, WORLD, Style

logger = logging.getLogger("fastreid.cc.synthetic")

#: Part of the folder's name; raise it with every change that changes a byte.
VERSION = 3
_PERSON, _CAMERA, _PICTURE = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions(Part):
    """Size and seed of a synthetic data set (config node CC.SYNTHETIC).

    Args:
        seed: another seed is another world: people, cameras, scenes.
        train_ids: people to learn from.
        test_ids: other people to search for; 0 = no test set.
        cameras: cameras of the world. With one there is no test set, for no query has a match in
            another camera.
        images_per_camera: pictures of each person by each camera; of a test person the first is the
            query and the others are gallery.
        height: height of the stored pictures, in pixels.
        width: width of the stored pictures, in pixels.
    """

    key = "CC.SYNTHETIC"
    limits = {
        "seed": "[0, 2147483647]",
        "train_ids": "[1, 5000]",
        "test_ids": "[0, 4999]",
        "cameras": "[1, 9]",
        "images_per_camera": "[1, 999]",
        "height": "[16, 1024]",
        "width": "[8, 1024]",
    }

    seed: int = 1
    train_ids: int = 80
    test_ids: int = 48
    cameras: int = 4
    images_per_camera: int = 4
    height: int = 128
    width: int = 64

    def __post_init__(self) -> None:
        if self.has_test and self.images_per_camera < 2:
            raise ValueError(
                f"{self.key}.IMAGES_PER_CAMERA=1 leaves no gallery image for"
                f" {self.key}.TEST_IDS={self.test_ids}; use at least 2, or TEST_IDS 0."
            )

    @property
    def has_test(self) -> bool:
        """Whether there are queries and a gallery."""
        return self.test_ids > 0 and self.cameras > 1

    @property
    def style(self) -> Style:
        """How the world looks."""
        return WORLD

    @property
    def folder(self) -> str:
        """Name of the folder that holds the files; says everything the files depend on."""
        return (
            f"synthetic-v{VERSION}-seed{self.seed}-ids{self.train_ids}+{self.test_ids}"
            f"-cams{self.cameras}x{self.images_per_camera}-{self.height}x{self.width}"
        )


@dataclass(frozen=True, kw_only=True)
class StyledOptions(SyntheticOptions):
    """A world that looks otherwise: another domain.

    Args:
        look: name of a style in `style.STYLES`.
    """

    key = "CC.SYNTHETIC"
    look: str = "studio"

    @classmethod
    def beside(cls, options: SyntheticOptions, look: str) -> StyledOptions:
        """A world of the same size with other people, cameras and scenes, and another look."""
        values = {f.name: getattr(options, f.name) for f in fields(SyntheticOptions)}
        step = 1 + list(STYLES).index(look)
        return cls(**{**values, "seed": (options.seed + 1_000_003 * step) % 2**31}, look=look)

    @property
    def style(self) -> Style:
        """The style called `look`."""
        return STYLES[self.look]

    @property
    def folder(self) -> str:
        """As of SyntheticOptions, with the style's name."""
        return f"{super().folder}-{self.look}"


def _shots(options: SyntheticOptions) -> Iterator[tuple[str, int, int, int]]:
    """(sub-folder, person, camera, number) of every picture; people and cameras count from 1."""
    people = options.train_ids + (options.test_ids if options.has_test else 0)
    counts = (people, options.cameras, options.images_per_camera)
    for person, camera, shot in itertools.product(*(range(1, n + 1) for n in counts)):
        folder = "query" if shot == 1 else "bounding_box_test"
        yield "bounding_box_train" if person <= options.train_ids else folder, person, camera, shot


def _write(options: SyntheticOptions, target: Path) -> None:
    seed, size = options.seed, (options.height, options.width)
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (target / name).mkdir()
    cameras, people = {}, {}
    shots = list(_shots(options))
    for c in {camera for _, _, camera, _ in shots}:
        rng = np.random.default_rng([seed, _CAMERA, c])
        cameras[c] = sample_camera(rng, *size, c / options.cameras, options.style)
    for p in {person for _, person, _, _ in shots}:
        people[p] = sample_identity(np.random.default_rng([seed, _PERSON, p]), options.style)
    for folder, p, c, shot in tqdm(shots, "drawing people", disable=not sys.stderr.isatty()):
        rng = np.random.default_rng([seed, _PICTURE, p, c, shot])
        picture = draw_picture(people[p], cameras[c], rng, *size)
        name = f"{p:04d}_c{c}s1_{shot:06d}_00.jpg"
        picture.save(target / folder / name, "JPEG", quality=cameras[c].quality, subsampling=2)


def build_synthetic(root: str | os.PathLike[str], options: SyntheticOptions) -> Path:
    """The folder of the data set below `root`, written first if it is not there.

    Args:
        root: the data folder (fastreid's FASTREID_DATASETS); made if missing.
    Returns:
        A folder with bounding_box_train, query and bounding_box_test, in Market-1501 naming
        (`0001_c1s1_000001_00.jpg`).
    Raises:
        OSError: if `root` cannot be written.

    The files go to a temporary folder that is renamed when complete, so a killed run leaves no
    half data set behind and two processes may build at once: one wins, the other discards its
    copy. The bytes depend on `options` and `VERSION` alone (and, in the last bit, on the JPEG
    library and numpy's arithmetic on this processor).

    Cost: 3 ms per picture of 128x64 on one core.
    """
    root = Path(root)
    target = root / options.folder
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    logger.info("Drawing synthetic people into %s", target)
    try:
        with make_folder_atomically(target) as part:
            _write(options, part)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise
    return target
