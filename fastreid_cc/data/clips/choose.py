"""Which boxes of a tracklet are worth a look, by the text alone; texts that do not fit a clip."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...errors import WrongUse, printable
from .boxes import Boxes
from .frames import Clip

_LOOKS = 3  # candidates for each crop that is kept
_MISFITS = 0.1  # share of boxes outside, or of steps that jump, above which the files do not fit


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a box and a tracklet must have.

    Args:
        per_tracklet: crops kept of a tracklet.
        min_frames: boxes that a tracklet must have.
        min_height, min_width: of the part of a box inside the picture, in pixels.
        max_covered: share of a box that another box of the frame may cover.
        min_inside: share of a box that must lie inside the picture.
        min_confidence: of a box, where the text says one.
        max_jump: heights of the box that its middle may move per frame; farther, and the id is cut
            into two tracklets there.
    """

    per_tracklet: int = 8
    min_frames: int = 5
    min_height: float = 48
    min_width: float = 16
    max_covered: float = 0.3
    min_inside: float = 0.8
    min_confidence: float = 0.0
    max_jump: float = 1.0


@dataclass(frozen=True)
class Candidates:
    """Boxes to look at.

    Attributes:
        boxes: sorted by frame. corners: i64 [M, 4], left, top, right, bottom inside the picture.
        covered: f64 [M]. tracklets: i64 [M], ids of the text, or a new one behind a jump.
        left_out: how many boxes for which reason. jumps: (id, frame from 0) of each cut.
    """

    boxes: Boxes
    corners: np.ndarray
    covered: np.ndarray
    tracklets: np.ndarray
    left_out: Counter[str]
    jumps: list[tuple[int, int]]


def fit(boxes: Boxes, clip: Clip, text: object, first_frame: int = 1) -> None:
    """Raises WrongUse if the boxes are not of this clip: too many frames, or another size."""
    last, name = int(boxes.frames[-1]), printable(clip.path)
    count = clip.count(last + 1)
    if last >= count:
        raise WrongUse(
            f"{printable(text)} has boxes in frame {last + first_frame:,}, but {name} holds"
            f" {count:,} frames. Do they belong together? Was the clip cut, or are frames left out?"
        )
    away = inside_share(boxes.xywh, clip.size) < 0.5
    if away.mean() > _MISFITS:
        row = int(np.flatnonzero(away)[0])
        box = " ".join(f"{value:g}" for value in boxes.xywh[row])
        raise WrongUse(
            f"{printable(text)}: {away.sum():,} of {len(boxes):,} boxes lie mostly outside the"
            f" pictures of {name}, {clip.size[0]} x {clip.size[1]} pixels, e.g. {box} of id"
            f" {boxes.ids[row]} in frame {boxes.frames[row] + first_frame}. Do they belong"
            " together? Columns 3 to 6 are x y width height, (x, y) the upper left corner."
        )


def choose_candidates(
    boxes: Boxes, size: tuple[int, int], limits: Limits, text: object
) -> Candidates:
    """Of each tracklet the best boxes of equal parts of its time: large and little covered.

    Raises:
        WrongUse: if so many steps jump that the columns must be wrong.

    Cost: O(M b) for b boxes in a frame.
    """
    tracklets, jumps = _cut_at_jumps(boxes, limits.max_jump, text)
    width, height = size
    corners = np.concatenate([boxes.xywh[:, :2], boxes.xywh[:, :2] + boxes.xywh[:, 2:]], 1)
    covered = _covered(boxes.frames, corners)
    corners[:, 0::2] = corners[:, 0::2].clip(0, width)
    corners[:, 1::2] = corners[:, 1::2].clip(0, height)
    wide, high = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    sizes = np.unique(tracklets, return_inverse=True, return_counts=True)
    rules = {
        "of short tracklets": sizes[2][sizes[1]] < limits.min_frames,
        "outside": inside_share(boxes.xywh, size) < limits.min_inside,
        "too small": (wide < limits.min_width) | (high < limits.min_height),
        "unsure": boxes.confidence < limits.min_confidence,  # NaN is not
        "covered": covered > limits.max_covered,
    }
    good, left_out = np.ones(len(boxes), bool), Counter[str]()
    for reason, bad in rules.items():
        left_out[reason] = int((good & bad).sum())
        good &= ~bad
    worth = wide * high * (1 - covered)
    kept = []
    rows = np.flatnonzero(good)
    rows = rows[np.argsort(tracklets[rows], kind="stable")]  # by tracklet, then frame
    for own in np.split(rows, np.flatnonzero(np.diff(tracklets[rows])) + 1):
        for part in np.array_split(own, min(len(own), _LOOKS * limits.per_tracklet) or 1):
            if len(part):
                kept.append(int(part[worth[part].argmax()]))
    rows = np.array(sorted(kept), np.int64)
    corners[:, :2], corners[:, 2:] = np.floor(corners[:, :2]), np.ceil(corners[:, 2:])
    return Candidates(
        boxes.take(rows),
        corners[rows].astype(np.int64),
        covered[rows],
        tracklets[rows],
        left_out,
        jumps,
    )


def inside_share(xywh: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """f64 [M]: share of each box that lies inside the picture."""
    share = np.ones(len(xywh))
    for axis in (0, 1):
        low, side = xywh[:, axis], xywh[:, axis + 2]
        share *= (np.minimum(low + side, size[axis]) - np.maximum(low, 0)).clip(0) / side
    return share


def _covered(frames: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """f64 [M]: the largest share of each box that one other box of its frame covers."""
    covered = np.zeros(len(frames))
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(frames)], strict=True):
        if stop - start < 2:
            continue
        c = corners[start:stop]
        low = np.maximum(c[:, None, :2], c[None, :, :2])  # [b, b, 2]
        high = np.minimum(c[:, None, 2:], c[None, :, 2:])
        common = (high - low).clip(0).prod(2)
        own = common.diagonal().copy()
        np.fill_diagonal(common, 0)
        covered[start:stop] = common.max(1) / own
    return covered


def _cut_at_jumps(
    boxes: Boxes, most: float, text: object
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """(tracklet of each box, cuts): an id whose box leaps is another tracklet from there on."""
    order = np.lexsort((boxes.frames, boxes.ids))
    ids, frames, xywh = boxes.ids[order], boxes.frames[order], boxes.xywh[order]
    steps = ids[1:] == ids[:-1]
    middle = xywh[:, :2] + xywh[:, 2:] / 2
    far = np.linalg.norm(np.diff(middle, axis=0), axis=1)
    reach = most * np.maximum(xywh[1:, 3], xywh[:-1, 3]) * np.diff(frames)
    leaps = np.flatnonzero(steps & (far > reach))
    if len(leaps) > 2 and len(leaps) > _MISFITS * steps.sum():
        at = int(leaps[0])
        raise WrongUse(
            f"{printable(text)}: in {len(leaps):,} of {int(steps.sum()):,} steps an id jumps, e.g."
            f" id {ids[at]} by {far[at]:.0f} pixels in {frames[at + 1] - frames[at]} frames. Are"
            " columns 3 to 6 x y width height, and columns 1 and 2 frame and id? --max-jump allows"
            " more."
        )
    tracklets, new = ids.copy(), int(ids.max()) + 1
    for at in leaps.tolist():
        rest = (ids == ids[at]) & (np.arange(len(ids)) > at)
        tracklets[rest] = new
        new += 1
    found = np.empty_like(tracklets)
    found[order] = tracklets
    return found, [(int(ids[at]), int(frames[at + 1])) for at in leaps.tolist()]
