"""What a generator of images is: photos in, trained step by step, images out by their number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import MissingData, printable
from ..registry import GENERATORS, Part

T = TypeVar("T")


class Drawn(NamedTuple):
    """An image that was made.

    Args:
        name: of its file, without folder, with ".png"; no two of a generator are equal.
        pixels: u8 [H, W, 3].
        origins: paths of the real images that it was made of; empty where all of them were learnt.
        note: how, in a few words.
    """

    name: str
    pixels: np.ndarray
    origins: tuple[str, ...] = ()
    note: str = ""


class Photos:
    """The real images that a generator works from, scaled to its size.

    Args:
        paths: of N images, in data-set order.
        people: i64 [N], who is on each: identities, clusters or tracklets; -1 = nobody known. None
            where it is not known of any.
        poses: path -> key points, f32 [18, 3] in pixels of the image, of those that have them.
        shown: further images, not to be learnt from, of which views are wanted.

    Pixels are read once and kept: 3·H·W bytes for each image that was asked for.
    """

    def __init__(
        self,
        paths: Sequence[str],
        people: np.ndarray | None = None,
        poses: Mapping[str, np.ndarray] | None = None,
        shown: Sequence[str] = (),
    ) -> None:
        self.paths, self.people, self.poses = list(paths), people, poses or {}
        self.shown = list(shown)
        self._kept: dict[tuple[int, int, int], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, rows: Sequence[int] | np.ndarray, height: int, width: int) -> np.ndarray:
        """u8 [len(rows), H, W, 3], RGB.

        Raises:
            MissingData: if an image cannot be read.
        """
        found = np.empty((len(rows), height, width, 3), np.uint8)
        for place, row in enumerate(rows):
            key = (int(row), height, width)
            if key not in self._kept:
                self._kept[key] = read(self.paths[int(row)], height, width)
            found[place] = self._kept[key]
        return found


def read(path: str, height: int, width: int) -> np.ndarray:
    """An image, u8 [H, W, 3], scaled to a size.

    Raises:
        MissingData: if it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        name, why = printable(Path(path).name), printable(error)
        raise MissingData(
            f"{printable(path)} cannot be read as an image ({name}: {why})."
        ) from error


class Generator(Part):
    """Base of the generators: build, `prepare` once, perhaps `train_step` on and on, `draw`.

    Everything random follows from the seed of `prepare` and the number of a step or an image, so a
    training that is cut off and goes on, and images drawn again, are the same byte for byte on the
    same machine. Constructors only store.

    Attributes:
        needs_people, needs_poses: whether `prepare` refuses photos without them.
    """

    needs_people: ClassVar[bool] = False
    needs_poses: ClassVar[bool] = False
    photos: Photos
    seed: int
    device: torch.device
    learns: bool

    def prepare(
        self,
        photos: Photos,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        learns: bool = True,
    ) -> None:
        """Takes the photos and builds what is trained; called once, before all else.

        Args:
            photos: to start from.
            seed: of all that is random.
            device: of the networks.
            learns: False = it only draws, after `load_state_dict` of one that learnt from others.
        Raises:
            BadConfig: if there is too little to work from, with the counts.
        """
        self.photos, self.seed, self.device = photos, seed, torch.device(device)
        self.learns = learns
        self.start()

    def start(self) -> None:  # noqa: B027  most have something to do
        """Checks the photos, and builds networks in `seeded`."""

    @property
    def num_steps(self) -> int:
        """Steps of its training; 0 = it learns nothing."""
        return 0

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Step 0, 1, ...: one update; what is to be shown of it, scalars on any device."""
        raise NotImplementedError(f"{self.key} is not trained")

    def state_dict(self) -> dict[str, Any]:
        """All that training changed: tensors and plain values, nested in dicts and lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Goes on from `state_dict`."""

    @property
    def capacity(self) -> int | None:
        """How many different images it can make of its photos; None = any number."""
        return None

    @abstractmethod
    def draw(self, numbers: Sequence[int]) -> list[Drawn]:
        """The images of these numbers (0, 1, ..., below `capacity`), in order."""

    def drawn(self, step: int) -> np.random.Generator:
        """Source of all chance of a step."""
        return np.random.default_rng((self.seed, 1, step))

    def drawn_for(self, number: int) -> np.random.Generator:
        """Source of all chance of an image."""
        return np.random.default_rng((self.seed, 2, number))

    def seeded(self, build: Callable[[], T]) -> T:
        """What `build` makes, its random weights from the seed; other random state stays."""
        with _only_here(self.seed):
            return build()


GENERATORS.base = Generator


@contextmanager
def _only_here(seed: int) -> Iterator[None]:
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def to_tensor(pixels: np.ndarray, device: torch.device) -> Tensor:
    """u8 [B, H, W, 3] as f32 [B, 3, H, W] in -1..1."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> np.ndarray:
    """The way back from `to_tensor`, with clipping."""
    scaled = ((images + 1) * 127.5).round().clamp(0, 255).byte()
    return scaled.permute(0, 2, 3, 1).cpu().contiguous().numpy()
