"""Reads the Market-1501 layout back into items."""

from __future__ import annotations

import re
from pathlib import Path

from ..items import Item, sort_items

_NAME = re.compile(r"^(-?\d+)_c(\d+)")


def read_market(folder: Path, prefix: str = "") -> list[Item]:
    """Items of one folder in Market-1501 naming, sorted by path.

    Args:
        folder: holds files like `0001_c1s1_000001_00.jpg`.
        prefix: "" gives integer identities and cameras (query and gallery, which fastreid compares
            as numbers); a name gives strings such as "synthetic_1" (training sets, which fastreid
            keeps apart by name).
    Returns:
        (path, identity, camera); cameras count from 0.
    """
    items: list[Item] = []
    for path in folder.glob("*.jpg"):
        match = _NAME.match(path.name)
        if match is None:
            raise ValueError(f"{path} is not named like 0001_c1s1_000001_00.jpg")
        labels = int(match[1]), int(match[2]) - 1
        person, camera = (f"{prefix}_{n}" if prefix else n for n in labels)
        items.append((str(path), person, camera))
    return sort_items(items)
