"""The pictures of a clip, in order: a video file, or a folder of frames.

Videos are decoded by OpenCV, which trackers use too, so that frame 17 of their text is frame 17
here; they are read from the start without jumps, for jumping in a video is not exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ...errors import UnreadableFile, WrongUse, printable
from ..checks import fault
from ..naming import list_images


class Clip(Protocol):
    """A clip.

    Attributes:
        path: of the file or folder.
        size: (width, height) of its pictures.
        rate: frames per second, 0 if not known.
    """

    path: Path
    size: tuple[int, int]
    rate: float

    def count(self, at_least: int) -> int:
        """The number of frames; of a video it may be too high unless it is below `at_least`."""

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(number, u8 [H, W, 3] RGB) of some frames, from 0, which must rise."""


def open_clip(path: Path) -> Clip:
    """A video file or a folder of frames.

    Raises:
        WrongUse: nothing there. UnreadableFile: no video, no image in it.
    """
    if path.is_dir():
        return _Folder(path)
    if path.suffix.lower() in (".txt", ".csv", ".json"):  # FFmpeg would draw their letters
        raise WrongUse(f"{printable(path)} is no clip; the clip comes first, then its text.")
    if path.is_file():
        return _Video(path)
    raise WrongUse(f"{printable(path)}: no such file or folder.")


class _Video:
    def __init__(self, path: Path) -> None:
        import cv2

        self.path = path
        video = self._open()
        self.rate = float(video.get(cv2.CAP_PROP_FPS) or 0)
        self._stated = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        done, picture = video.read()
        if not done:
            raise UnreadableFile(f"{printable(path)} is no video that OpenCV can read.")
        self.size: tuple[int, int] = picture.shape[1], picture.shape[0]  # turned, as the file says

    def _open(self) -> Any:
        import cv2

        video = cv2.VideoCapture(str(self.path.absolute()), cv2.CAP_FFMPEG)
        if not video.isOpened():
            raise UnreadableFile(f"{printable(self.path)} is no video that OpenCV can read.")
        return video

    def count(self, at_least: int) -> int:
        """As its head says, and where that is fewer than `at_least`, as they are decoded."""
        if self._stated < at_least:
            video, self._stated = self._open(), 0
            while video.grab():
                self._stated += 1
        return self._stated

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        import cv2

        video, at = self._open(), -1
        for number in wanted:
            while at < number:
                if not video.grab():
                    raise UnreadableFile(
                        f"{printable(self.path)} ends or is damaged after {at + 1:,} frames; frame"
                        f" {number + 1:,} is wanted."
                    )
                at += 1
            done, picture = video.retrieve()
            if not done:
                raise UnreadableFile(f"{printable(self.path)}: frame {at + 1:,} cannot be decoded.")
            yield number, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


class _Folder:
    rate = 0.0

    def __init__(self, path: Path) -> None:
        self.path = path
        names = [name for name in list_images(path) if "/" not in name]
        if not names:
            raise UnreadableFile(f"{printable(path)}: no image in it.")
        self._paths = [str(path / name) for name in sorted(names, key=_natural)]
        self.size = self._picture(0).size

    def _picture(self, number: int) -> Image.Image:
        path = self._paths[number]
        if (why := fault(path)) is not None:
            raise UnreadableFile(f"{printable(path)} cannot be read: {printable(why)}.")
        with Image.open(path) as image:
            return image.convert("RGB")

    def count(self, at_least: int) -> int:
        return len(self._paths)

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for number in wanted:
            picture = self._picture(number)
            if picture.size != self.size:
                raise UnreadableFile(
                    f"{printable(self._paths[number])} has {picture.size[0]} x {picture.size[1]}"
                    f" pixels, the first frame {self.size[0]} x {self.size[1]}."
                )
            yield number, np.asarray(picture)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame_9 before frame_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
