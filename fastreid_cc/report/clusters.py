"""Which clusters to look at: the largest, tightest, most mixed over cameras and most doubtful."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .runs import Clustered

BLOCK = 4096
SMALL = 4  # images; smaller clusters are tight by chance


@dataclass(frozen=True)
class ClusterStats:
    """Figures of every cluster. C clusters, N images.

    Args:
        sizes: i64 [C].
        cameras: i64 [C], cameras in a cluster.
        mixing: f64 [C], entropy of its images over cameras, in bits.
        tightness: f32 [C], mean cosine of its images to its centre.
        margin: f32 [C], the same less the cosine to the nearest other centre, mean.
        own: f32 [N], cosine of an image to its centre; nan for outliers.
        nearest: i64 [N], the nearest centre that is not the image's own.
        other: f32 [N], cosine to it.
        purity: f64 [C], share of the images with a known identity that have the most frequent one;
            nan where none is known. None without truth.
        majority: i64 [C], that identity, -1 where none is known. None without truth.
    """

    sizes: np.ndarray
    cameras: np.ndarray
    mixing: np.ndarray
    tightness: np.ndarray
    margin: np.ndarray
    own: np.ndarray
    nearest: np.ndarray
    other: np.ndarray
    purity: np.ndarray | None
    majority: np.ndarray | None


def describe(images: Clustered) -> ClusterStats:
    """Figures of all clusters.

    Raises:
        ValueError: without a cluster.

    Cost: O(N C D) time, a block of 4096 x C floats.
    """
    labels, count = images.labels, int(images.labels.max(initial=-1)) + 1
    if count == 0:
        raise ValueError("There is no cluster.")
    kept = labels >= 0
    sizes = np.bincount(labels[kept], minlength=count)
    centres = np.zeros((count, images.features.shape[1]), dtype=np.float32)
    np.add.at(centres, labels[kept], images.features[kept])
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    own, nearest, other = _near(images.features, labels, centres)
    present, mixing = _mixing(labels[kept], images.cameras[kept], count)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(labels[kept], weights=values[kept], minlength=count) / sizes

    purity, majority = _purity(labels, images.truth, count)
    return ClusterStats(
        sizes, present, mixing, mean(own), mean(own - other), own, nearest, other, purity, majority
    )


def _near(features: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, ...]:
    own = np.full(len(labels), np.nan, dtype=np.float32)
    nearest = np.full(len(labels), -1)
    other = np.zeros(len(labels), dtype=np.float32)
    for start in range(0, len(labels), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(labels)))
        cosine = features[rows] @ centres.T
        mine = rows[labels[rows] >= 0]
        own[mine] = cosine[mine - start, labels[mine]]
        cosine[mine - start, labels[mine]] = -np.inf
        if cosine.shape[1] > 1 or len(mine) < len(rows):
            nearest[rows] = cosine.argmax(axis=1)
            other[rows] = cosine.max(axis=1)
    lone = ~np.isfinite(other)  # of one cluster: there is no other
    nearest[lone], other[lone] = -1, 0
    return own, nearest, other


def _mixing(labels: np.ndarray, cameras: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    _, camera = np.unique(cameras, return_inverse=True)
    table = np.zeros((count, int(camera.max(initial=0)) + 1))
    np.add.at(table, (labels, camera), 1)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    entropy = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1)
    return (table > 0).sum(axis=1), entropy


def _purity(
    labels: np.ndarray, truth: np.ndarray | None, count: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if truth is None:
        return None, None
    purity, majority = np.full(count, np.nan), np.full(count, -1)
    known = (labels >= 0) & (truth >= 0)
    pairs, counts = np.unique(np.stack([labels[known], truth[known]]), axis=1, return_counts=True)
    total = np.bincount(labels[known], minlength=count)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    clusters, first = np.unique(pairs[0][order], return_index=True)
    majority[clusters] = pairs[1][order][first]
    purity[clusters] = counts[order][first] / total[clusters]
    return purity, majority


def choose(facts: ClusterStats, count: int) -> list[tuple[str, str, np.ndarray]]:
    """Sheets: (title, how they were chosen, clusters in order)."""
    index = np.arange(len(facts.sizes))
    large = index[facts.sizes >= min(SMALL, facts.sizes.max())]

    def first(candidates: np.ndarray, *keys: np.ndarray) -> np.ndarray:
        return candidates[np.lexsort([key[candidates] for key in reversed(keys)])][:count]

    floor = f"among clusters of {SMALL} images or more"
    return [
        ("Largest", "most images first", first(index, -facts.sizes)),
        (
            "Tightest",
            f"mean cosine to the centre, highest first, {floor}",
            first(large, -facts.tightness),
        ),
        (
            "Most mixed over cameras",
            "most cameras first, evenly filled ones before others",
            first(index, -facts.cameras, -facts.mixing),
        ),
        (
            "Most doubtful",
            "nearest to another cluster's centre, measured by the margin",
            first(index, facts.margin),
        ),
    ]


def spread(order: np.ndarray, count: int) -> np.ndarray:
    """At most `count` entries of an ordered list, evenly from its first to its last."""
    if len(order) <= count:
        return order
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)]


def linked_cameras(images: Clustered) -> tuple[np.ndarray, np.ndarray]:
    """How clusters join cameras.

    Returns:
        cameras i64 [C] in sorted order; f64 [C, C]: of the clusters with an image of the row's
        camera, the share that also holds one of the column's; nan for a camera in no cluster.
    """
    cameras, camera = np.unique(images.cameras, return_inverse=True)
    kept = images.labels >= 0
    holds = np.zeros((int(images.labels.max(initial=-1)) + 1, len(cameras)))
    holds[images.labels[kept], camera[kept]] = 1
    together, own = holds.T @ holds, holds.sum(axis=0)[:, None]
    return cameras, np.where(own > 0, together / np.maximum(own, 1), np.nan)
