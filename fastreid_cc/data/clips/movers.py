"""Boxes of what moves before a camera that stands still, for clips without a tracker's text.

No detector and no tracker: whatever differs from the empty scene is a box, two people who touch are
one box, and a box keeps its number while it overlaps itself. It shows the way through the work; use
a tracker where it matters.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from ...errors import ClearError, printable
from .boxes import Boxes
from .frames import Clip

_LEARNT = 60  # frames whose median is the empty scene
_NOISE = 40  # squared deviations from it that count as the same
_LEAST = 0.002  # share of the picture that a box must have; a part of it, a fourth
_MEMORY = 10  # frames without a box after which a number ends
_IOU = 0.2


def find_movers(clip: Clip) -> Boxes:
    """Boxes of one clip by background subtraction (MOG2), associated by overlap.

    Raises:
        ClearError: if nothing moves.

    Cost: decodes the clip twice; 5 ms a frame of 640x480.
    """
    import cv2

    count = clip.count(1)
    every = list(range(count))
    learnt = every[:: max(1, -(-count // _LEARNT))]
    bar = tqdm(clip.frames(learnt), "empty scene", len(learnt), **_quiet())
    empty = np.median(np.stack([picture for _, picture in bar]), 0).astype(np.uint8)
    model = cv2.createBackgroundSubtractorMOG2(varThreshold=_NOISE)
    model.apply(empty, learningRate=1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    rows: list[list[float]] = []
    alive: dict[int, tuple[int, np.ndarray]] = {}  # number -> last frame and box
    new = 1
    for frame, picture in tqdm(clip.frames(every), "what moves", count, **_quiet()):
        mask = (model.apply(picture, learningRate=0) == 255).astype(np.uint8)  # 127 is shadow
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel, iterations=4)
        parts = cv2.connectedComponentsWithStats(mask)[2][1:]
        boxes = _joined(parts[parts[:, 4] > _LEAST / 4 * mask.size, :4].astype(np.float64))
        boxes = boxes[boxes[:, 2:].prod(1) > _LEAST * mask.size]
        alive = {who: last for who, last in alive.items() if frame - last[0] <= _MEMORY}
        numbers = list(alive)
        overlap = _iou(boxes, np.array([alive[who][1] for who in numbers]).reshape(-1, 4))
        known = dict(zip(*linear_sum_assignment(-overlap), strict=True))
        for at, box in enumerate(boxes):
            if at in known and overlap[at, known[at]] >= _IOU:
                who = numbers[known[at]]
            else:
                who, new = new, new + 1
            alive[who] = frame, box
            rows.append([frame, who, *box])
    if not rows:
        raise ClearError(f"{printable(clip.path)}: nothing moves in it.")
    table = np.array(rows)
    unknown = np.full(len(table), np.nan)
    return Boxes(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:], unknown)


def _joined(parts: np.ndarray) -> np.ndarray:
    """Boxes of parts x, y, w, h that lie one above the other: head, trunk and legs of one body."""
    low, high = parts[:, :2], parts[:, :2] + parts[:, 2:]
    common = np.minimum(high[:, None], high[None]) - np.maximum(
        low[:, None], low[None]
    )  # [n, n, 2]
    widths, heights = parts[:, 2], parts[:, 3]
    same = common[..., 0] > 0.5 * np.minimum(widths[:, None], widths[None])
    same &= common[..., 1] > -0.3 * np.maximum(heights[:, None], heights[None])
    groups = connected_components(same, directed=False)[1]
    boxes = [(low[groups == g].min(0), high[groups == g].max(0)) for g in np.unique(groups)]
    return np.array([[*a, *(b - a)] for a, b in boxes]).reshape(-1, 4)


def _quiet() -> dict[str, bool]:
    return {"disable": not sys.stderr.isatty()}


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """f64 [n, m] of boxes x, y, w, h."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    common = (high - low).clip(0).prod(2)
    return common / (a[:, 2:].prod(1)[:, None] + b[:, 2:].prod(1)[None] - common)
