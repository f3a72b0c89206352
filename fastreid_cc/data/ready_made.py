"""Ready-made other pictures of images, in a folder and found by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..errors import BadConfig


class ReadyMade:
    """Pictures of a folder and its sub-folders, of any format, by the image they were made of.

    Args:
        folder: searched with its sub-folders.
        paths: of the images.
        key: config key that names the folder, for messages.
        pattern: of a picture's stem; its group `stem` is the image's stem.
        example: of such a name, with `{stem}`.
        what: such a picture is called, and what to do without, for messages.

    Attributes:
        found: stem of an image -> its pictures (what `pattern` said, path), sorted by path.
        num_without: images that have none.

    Raises:
        BadConfig: if there is no such folder or it has no picture of any of the images.
    """

    def __init__(
        self,
        folder: str,
        paths: Sequence[str],
        *,
        key: str,
        pattern: re.Pattern[str],
        example: str,
        what: tuple[str, str],
    ) -> None:
        root = Path(folder)
        if not folder or not root.is_dir():
            raise BadConfig(f"{key}={folder!r} is no folder.")
        wanted = {Path(path).stem for path in paths}
        self.found: dict[str, list[tuple[re.Match[str], str]]] = {}
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            match = pattern.match(path.stem)
            if match and match["stem"] in wanted:
                self.found.setdefault(match["stem"], []).append((match, str(path)))
        self.num_without = len(wanted) - len(self.found)
        if not self.found:
            name = example.format(stem=min(wanted, default="0001_c1s1_000151_01"))
            raise BadConfig(
                f"{key}={folder!r} holds no {what[0]} of a training image; looked for names like"
                f" {name}. {what[1]}"
            )


def open_as(path: str, image: Image.Image) -> Image.Image:
    """The picture of a file, RGB, scaled to the size of `image`."""
    with Image.open(path) as found:
        return found.convert("RGB").resize(image.size, Image.Resampling.BICUBIC)
