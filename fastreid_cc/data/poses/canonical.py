"""A few poses that stand for all of a set: k-means over key points, means of the clusters.

After Qian et al., Pose-Normalized Image Generation, ECCV 2018 (arXiv:1712.02225), who cluster VGG
features of pose pictures into 8 and take the mean pose picture of each. Here the key points
themselves are clustered, so no network is needed; the mean picture is there too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans

from ...errors import WrongUse
from .keypoints import INDEX
from .maps import draw_skeleton

_HIPS = (INDEX["right_hip"], INDEX["left_hip"])
_NECK = INDEX["neck"]
VISIBLE_WEIGHT = 0.5  # of seen against hidden, in torso lengths


@dataclass(frozen=True)
class Canonical:
    """K poses, the most frequent first.

    Args:
        poses: f32 [K, 18, 3], in pixels, all with one hip centre and torso length: the median's.
        labels: i64 [N], pose of each image, -1 = its torso is not seen.
        nearest: i64 [K], image nearest to each cluster's centre.
    """

    poses: np.ndarray
    labels: np.ndarray
    nearest: np.ndarray


def normalize(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves the hips' centre to 0 and scales the torso, from there to the neck, to 1.

    Args:
        poses: f32 [N, 18, 3].
    Returns:
        (f32 [N, 18, 3]; f32 [N, 3] hip centre and torso length in pixels; bool [N], whether neck
        and a hip are seen and apart, else the pose is left as it is and the length is 1). With one
        hip seen, that is the centre.
    """
    hips = poses[:, _HIPS]
    seen = (hips[..., 2:] > 0).astype(np.float32)
    centre = (hips[..., :2] * seen).sum(1) / np.maximum(seen.sum(1), 1)
    length = np.linalg.norm(poses[:, _NECK, :2] - centre, axis=1)
    usable = (seen.sum((1, 2)) > 0) & (poses[:, _NECK, 2] > 0) & (length > 0)
    centre[~usable], length[~usable] = 0, 1
    found = poses.astype(np.float32).copy()
    found[..., :2] = (found[..., :2] - centre[:, None]) / length[:, None, None]
    return found, np.column_stack([centre, length]).astype(np.float32), usable


def canonical_poses(poses: np.ndarray, *, count: int = 8, seed: int = 0) -> Canonical:
    """Clusters poses by k-means and takes the mean pose of each cluster.

    An image's vector holds its normalised coordinates, those of hidden points replaced by the mean
    of the images that show them, and VISIBLE_WEIGHT for each point seen, which tells front from
    back. In a mean pose a point is the mean over the images that show it, and is seen if more than
    half of them do.

    Args:
        poses: f32 [N, 18, 3] in pixels of pictures of one size.
        count: K.
        seed: of k-means, which starts ten times. Clusters are numbered by size, then by their first
            image.
    Raises:
        WrongUse: if fewer than K different poses show neck and hip.

    Cost: ten k-means of N x 54 numbers: under a second for 10,000 images.
    """
    normal, placed, usable = normalize(poses)
    rows = np.flatnonzero(usable)
    normal = normal[rows].astype(np.float64)
    seen = normal[..., 2] > 0
    points = normal[..., :2] * seen[..., None]  # [M, 18, 2]
    mean = points.sum(0) / np.maximum(seen.sum(0), 1)[:, None]
    filled = np.where(seen[..., None], points, mean)
    vectors = np.concatenate([filled.reshape(len(rows), -1), VISIBLE_WEIGHT * seen], 1)
    different = len(np.unique(vectors, axis=0))
    if different < count:
        raise WrongUse(
            f"{different} different poses show neck and hip, of {len(poses)} images: too few for"
            f" {count} canonical ones."
        )
    found = KMeans(count, n_init=10, random_state=seed).fit(vectors)
    sizes = np.bincount(found.labels_, minlength=count)
    first = [int((found.labels_ == c).argmax()) for c in range(count)]
    order = sorted(range(count), key=lambda c: (-sizes[c], first[c]))
    rank = np.argsort(order)
    labels = np.full(len(poses), -1, np.int64)
    labels[rows] = rank[found.labels_]
    means = np.zeros((count, 18, 3), np.float32)
    nearest = np.zeros(count, np.int64)
    x, y, torso = np.median(placed[rows], axis=0)
    for k, c in enumerate(order):
        own = np.flatnonzero(found.labels_ == c)
        shown = seen[own].sum(0)  # [18]
        place = points[own].sum(0) / np.maximum(shown, 1)[:, None] * torso + (x, y)
        means[k, :, :2] = place
        means[k, :, 2] = shown * 2 > len(own)
        means[k, shown == 0] = 0
        distance = np.square(vectors[own] - found.cluster_centers_[c]).sum(1)
        nearest[k] = rows[own[distance.argmin()]]
    return Canonical(means, labels, nearest)


def mean_pose_images(poses: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean skeleton picture of each cluster, the paper's form of a canonical pose.

    Args:
        poses: f32 [N, 18, 3], in pixels of pictures of this size.
        labels: i64 [N] in -1..K-1.
        size: (height, width).
    Returns:
        u8 [K, H, W, 3], on black.

    Cost: draws N skeletons, 0.1 ms each.
    """
    count = int(labels.max()) + 1
    sums = np.zeros((count, *size, 3))
    for row in np.flatnonzero(labels >= 0).tolist():
        sums[labels[row]] += np.asarray(draw_skeleton(poses[row], size))
    members = np.bincount(labels[labels >= 0], minlength=count)
    return np.rint(sums / np.maximum(members, 1)[:, None, None, None]).astype(np.uint8)
