"""Similarities of images within clusters against those to the nearest other cluster.

From the two a threshold follows: from which similarity on two images are called the same, and how
often that is wrong. Labels may be clusters or identities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 4096


@dataclass(frozen=True)
class Separation:
    """Similarities of pairs of images, and what a threshold makes of them.

    Args:
        within: f32 [P], cosines of pairs of one cluster, ascending.
        between: f32 [M], cosines of pairs of a cluster and its nearest other one, ascending.
    """

    within: np.ndarray
    between: np.ndarray

    def false_match_rate(self, threshold: float) -> float:
        """Share of the pairs of two clusters at or above the threshold; nan without a pair.

        The clusters are each other's nearest, so among pairs drawn at random it is far lower.
        """
        return 1 - _share_below(self.between, threshold)

    def miss_rate(self, threshold: float) -> float:
        """Share of the pairs of one cluster below the threshold; nan without a pair."""
        return _share_below(self.within, threshold)

    def threshold(self, max_false_match_rate: float = 0.01) -> float:
        """The lowest threshold with at most this rate of false matches; nan without pairs."""
        count = len(self.between)
        if not count:
            return float("nan")
        allowed = int(max_false_match_rate * count + 1e-9)
        if allowed >= count:
            return -1.0
        return float(np.nextafter(self.between[count - 1 - allowed], np.float32(2)))


def _share_below(values: np.ndarray, threshold: float) -> float:
    if not len(values):
        return float("nan")
    return float(np.searchsorted(values, np.float32(threshold), side="left") / len(values))


def cluster_centres(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """f32 [C, D], unit means of the clusters 0..C-1 of features f32 [N, D], labels i64 [N]."""
    kept = labels >= 0
    centres = np.zeros((int(labels.max(initial=-1)) + 1, features.shape[1]), dtype=np.float32)
    np.add.at(centres, labels[kept], features[kept])
    return centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)


def nearest_clusters(centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The other centre of largest inner product with each, i64 [C], and that product, f32 [C].

    -1 and nan where there is no other. Cost: O(C^2 D) time, a block of 4096 x C floats.
    """
    count = len(centres)
    found, cosine = np.full(count, -1), np.full(count, np.nan, dtype=np.float32)
    for start in range(0, count if count > 1 else 0, BLOCK):
        rows = np.arange(start, min(start + BLOCK, count))
        near = centres[rows] @ centres.T
        near[rows - start, rows] = -np.inf
        found[rows], cosine[rows] = near.argmax(axis=1), near.max(axis=1)
    return found, cosine


def separate(features: np.ndarray, labels: np.ndarray, *, per_cluster: int = 128) -> Separation:
    """Similarities of pairs within clusters, and of each cluster and the one of nearest centre.

    Args:
        features: f32 [N, D], unit rows.
        labels: i64 [N], 0..C-1, -1 = left out (an outlier, an unknown identity); numbers may be
            missing.
        per_cluster: images taken of a cluster, evenly in the order of the data.
    Returns:
        Every pair of images once; two clusters that are each other's nearest count once.

    Cost: O(C^2 D + N per_cluster D) time. Similarities are of the features given: those of images
    a network was trained on lie closer together than those of new ones.
    """
    labels = np.unique(labels, return_inverse=True)[1] - int((labels < 0).any())
    order = np.argsort(labels, kind="stable")[(labels < 0).sum() :]
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
    taken = [features[_evenly(group, per_cluster)] for group in groups]
    within = [(rows @ rows.T)[np.triu_indices(len(rows), 1)] for rows in taken]
    nearest, _ = nearest_clusters(cluster_centres(features, labels))
    pairs = {(min(a, b), max(a, b)) for a, b in enumerate(nearest.tolist()) if b >= 0}
    between = [(taken[a] @ taken[b].T).ravel() for a, b in sorted(pairs)]
    return Separation(*(np.sort(np.concatenate([[], *x]).astype("f4")) for x in (within, between)))


def _evenly(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
