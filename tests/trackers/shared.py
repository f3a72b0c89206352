"""What both checks in the trackers' environment do; nothing of fastreid_cc is imported there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

ALLOWED = 1e-3


def ours(folder: Path) -> tuple[dict[str, Any], np.ndarray, list[str]]:
    """What `ours.py` wrote: facts, features f32 [N, D], paths of the crops resized by us."""
    told = json.loads((folder / "ours.json").read_text())
    resized = [str(folder / "resized" / f"{row:05d}.png") for row in range(len(told["paths"]))]
    return told, np.load(folder / "ours.npy"), resized


def agree(what: str, found: np.ndarray, wanted: np.ndarray, *, must: bool) -> None:
    """Prints how far features are apart in cosine; with `must`, at most ALLOWED."""
    cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1)
    print(f"{what}: cosine to ours least {cosines.min():.6f}, mean {cosines.mean():.6f}")
    if must and not cosines.min() >= 1 - ALLOWED:
        raise SystemExit(f"FAILED: {what} differs by more than {ALLOWED:g}")
