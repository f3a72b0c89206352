"""Images of the data set as small JPEGs inside the page."""

from __future__ import annotations

import base64
import io
import warnings
from typing import NamedTuple

from PIL import Image, ImageOps

MAX_SIDE = 160
QUALITY = 82
BUDGET = 16 * 1024 * 1024  # bytes of base64; what comes after is left out and counted


class Shot(NamedTuple):
    """An image on the page.

    Args:
        uri: its data; None shows a gap instead.
        title: the file's name and what the frame means, shown on hover and read out.
        caption: one short line below it.
        kind: "", "query", "right", "wrong", "odd" or "core": the frame.
    """

    uri: str | None
    title: str
    caption: str
    kind: str


class Album:
    """Data URIs of images, each file read once.

    Args:
        budget: bytes of base64 that the page may hold; further images are refused.
        shows: False for a page without any image or file name.

    Attributes:
        refused: images left out for the budget.
        unreadable: images that could not be read.
    """

    def __init__(self, budget: int = BUDGET, *, shows: bool = True) -> None:
        self.shows = shows
        self.budget, self.used, self.refused, self.unreadable = budget, 0, 0, 0
        self._known: dict[str, str | None] = {}

    def shot(self, path: str, caption: str, kind: str = "", label: str = "") -> Shot:
        """The image of a file; `label` says what its frame means."""
        if not self.shows:
            return Shot(None, label, caption, kind)
        return Shot(self.uri(path), f"{path} – {label}" if label else path, caption, kind)

    def uri(self, path: str) -> str | None:
        """The image, its longer side at most 160 pixels; None if unreadable or over budget."""
        if path not in self._known:
            self._known[path] = self._encode(path)
        found = self._known[path]
        if found is not None and self.used + len(found) > self.budget:
            self.refused += 1
            return None
        self.used += len(found or "")
        return found

    def _encode(self, path: str) -> str | None:
        stream = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    image.draft("RGB", (2 * MAX_SIDE, 2 * MAX_SIDE))  # JPEG: decode it small
                    small = ImageOps.exif_transpose(image).convert("RGB")
                small.thumbnail((MAX_SIDE, MAX_SIDE))
                small.save(stream, "JPEG", quality=QUALITY, optimize=True)
        except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
            self.unreadable += 1
            return None
        return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
