"""What every search checks before it starts."""

from __future__ import annotations

from typing import TypeVar

Rows = TypeVar("Rows")


def rows_asked(images: int, k: int, rows: Rows | None) -> Rows | range:
    """The rows to search for: `rows`, or all of the data set.

    Raises:
        ValueError: if k is not in [1, images].
    """
    if not 1 <= k <= images:
        raise ValueError(f"k={k} neighbours asked of {images} images; k must lie in [1, {images}]")
    return range(images) if rows is None else rows
