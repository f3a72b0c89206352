"""Key points of a person: 18 in OpenPose's order, and what becomes of other orders.

Everywhere else in the project a pose is f32 [18, 3]: x to the right and y down in pixels of its
picture (pixel (row i, column j) covers [j, j + 1) x [i, i + 1)), and a visibility in [0, 1]: 0 =
hidden, outside the picture or unknown, else how sure an estimator is. Left and right are the
person's own. Nose, eyes and ears are among them because shoulders, arms and legs alone look the
same from the front and from behind.
"""

from __future__ import annotations

import numpy as np

#: Names, in the order of OpenPose's COCO model.
NAMES = (
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
)
INDEX = {name: i for i, name in enumerate(NAMES)}
#: Pairs of key points that a skeleton joins.
LIMBS = tuple(
    (INDEX[a], INDEX[b])
    for a, b in (
        ("neck", "right_shoulder"),
        ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"),
        ("neck", "left_shoulder"),
        ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
        ("neck", "right_hip"),
        ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"),
        ("neck", "left_hip"),
        ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"),
        ("neck", "nose"),
        ("nose", "right_eye"),
        ("right_eye", "right_ear"),
        ("nose", "left_eye"),
        ("left_eye", "left_ear"),
    )
)
#: COCO's 17 names; it has no neck.
COCO = tuple(
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow"
    " left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle".split()
)
#: Places of the 18 among OpenPose's 25 (BODY_25: a mid hip and feet more).
_OF_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
COUNTS = (17, 18, 25)


def to_18(points: np.ndarray, names: tuple[str, ...] | None = None) -> np.ndarray:
    """The 18 key points of a person given in another order.

    Args:
        points: f32 [P, 3], x, y, visibility.
        names: of the P points; None = COCO's for 17, OpenPose's for 18, BODY_25's for 25.
    Returns:
        f32 [18, 3], a new array. A missing neck is the middle of the shoulders, as visible as the
        less visible one; any other missing point has visibility 0.
    Raises:
        ValueError: if P points have no known order.
    """
    points = np.asarray(points, np.float32)
    if names is None:
        if len(points) not in COUNTS:
            raise ValueError(f"{len(points)} key points; known are 17 (COCO), 18 and 25 (OpenPose)")
        if len(points) == 25:
            return points[list(_OF_25)]
        names = COCO if len(points) == 17 else NAMES
    found = np.zeros((18, 3), np.float32)
    for name, point in zip(names, points, strict=True):
        if name in INDEX:
            found[INDEX[name]] = point
    if "neck" not in names:
        pair = found[[INDEX["right_shoulder"], INDEX["left_shoulder"]]]
        found[INDEX["neck"]] = (*pair[:, :2].mean(0), pair[:, 2].min())
    return found


def resize_keypoints(
    keypoints: np.ndarray, old: tuple[int, int], new: tuple[int, int]
) -> np.ndarray:
    """Key points f32 [..., 18, 3] of pictures of (height, width) `old`, resized to `new`."""
    scale = np.array([new[1] / old[1], new[0] / old[0], 1], np.float32)
    return (keypoints * scale).astype(np.float32)
