"""Pictures of poses for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .canonical import Canonical, mean_pose_images
from .maps import draw_skeleton

_GAP = 4


def tile(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Pictures of one size in rows, with a grey gap between them."""
    width, height = rows[0][0].size
    columns = max(len(row) for row in rows)
    size = columns * (width + _GAP) + _GAP, len(rows) * (height + _GAP) + _GAP
    sheet = Image.new("RGB", size, (90, 90, 90))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            sheet.paste(picture, (_GAP + j * (width + _GAP), _GAP + i * (height + _GAP)))
    return sheet


def canonical_sheet(found: Canonical, poses: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """The canonical poses as skeletons, and below each the mean picture of its images' skeletons.

    Args:
        found: of these poses.
        poses: f32 [N, 18, 3], in pixels of pictures of this size.
        size: (height, width).
    """
    means = mean_pose_images(poses, found.labels, size)
    brighter = [np.clip(2.0 * mean, 0, 255).astype(np.uint8) for mean in means]
    return tile(
        [
            [draw_skeleton(pose, size) for pose in found.poses],
            [Image.fromarray(mean) for mean in brighter],
        ]
    )
