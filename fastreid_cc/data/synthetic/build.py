"""Writes a synthetic re-ID data set in Market-1501 layout, once, and finds it again."""

from __future__ import annotations

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
from .camera import Camera, sample_camera
from .identity import Identity, sample_identity
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
        tail: exponent s of Zipf's law for pictures per training person: the i-th has i^-s of all
            TRAIN_IDS · CAMERAS · IMAGES_PER_CAMERA, rounded, at least 1; 0 = all the same. Test
            people are not touched.
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
        "tail": "[0, 4]",
    }

    seed: int = 1
    train_ids: int = 80
    test_ids: int = 48
    cameras: int = 4
    images_per_camera: int = 4
    height: int = 128
    width: int = 64
    tail: float = 0.0

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
        tail = f"-tail{self.tail:g}" if self.tail else ""
        return (
            f"synthetic-v{VERSION}-seed{self.seed}-ids{self.train_ids}+{self.test_ids}"
            f"-cams{self.cameras}x{self.images_per_camera}-{self.height}x{self.width}{tail}"
        )

    def pictures_of(self, person: int) -> list[int]:
        """How many pictures each camera takes of a person; people count from 1."""
        if not self.tail or person > self.train_ids:
            return [self.images_per_camera] * self.cameras
        shares = np.arange(1, self.train_ids + 1, dtype=np.float64) ** -self.tail
        every = self.train_ids * self.cameras * self.images_per_camera
        total = max(1, round(every * shares[person - 1] / shares.sum()))
        whole, rest = divmod(total, self.cameras)  # a rest goes to cameras from person's own on
        return [whole + ((c - person) % self.cameras < rest) for c in range(self.cameras)]


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


Shot = tuple[str, int, int, int]


def _shots(options: SyntheticOptions) -> Iterator[Shot]:
    """(sub-folder, person, camera, number) of every picture; people and cameras count from 1."""
    people = options.train_ids + (options.test_ids if options.has_test else 0)
    for person in range(1, people + 1):
        for camera, count in enumerate(options.pictures_of(person), 1):
            for shot in range(1, count + 1):
                folder = "query" if shot == 1 else "bounding_box_test"
                if person <= options.train_ids:
                    folder = "bounding_box_train"
                yield folder, person, camera, shot


def name_of(shot: Shot) -> str:
    """The file of a picture below the data set's folder, in Market-1501 naming."""
    folder, person, camera, number = shot
    return f"{folder}/{person:04d}_c{camera}s1_{number:06d}_00.jpg"


class World:
    """People, cameras and pictures of a set, each drawn from its own random numbers.

    Attributes:
        shots: of all pictures. cameras, people: by number, from 1.
    """

    def __init__(self, options: SyntheticOptions) -> None:
        self.options, self.shots = options, list(_shots(options))
        self.size = options.height, options.width
        self.cameras, self.people = {}, {}
        for c in {camera for _, _, camera, _ in self.shots}:
            rng = np.random.default_rng([options.seed, _CAMERA, c])
            place = c / options.cameras
            self.cameras[c] = sample_camera(rng, *self.size, place, options.style)
        for p in {person for _, person, _, _ in self.shots}:
            rng = np.random.default_rng([options.seed, _PERSON, p])
            self.people[p] = sample_identity(rng, options.style)

    def of(self, shot: Shot) -> tuple[Identity, Camera, np.random.Generator, int, int]:
        """What `draw_picture` and `replay` need of a picture."""
        _, p, c, number = shot
        rng = np.random.default_rng([self.options.seed, _PICTURE, p, c, number])
        return self.people[p], self.cameras[c], rng, *self.size


def _write(options: SyntheticOptions, target: Path) -> None:
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (target / name).mkdir()
    world = World(options)
    for shot in tqdm(world.shots, "drawing people", disable=not sys.stderr.isatty()):
        quality = world.cameras[shot[2]].quality
        picture = draw_picture(*world.of(shot))
        picture.save(target / name_of(shot), "JPEG", quality=quality, subsampling=2)


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
