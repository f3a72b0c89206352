"""Figures of clusters, and which to show: perhaps two identities, perhaps one twice, others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import entropy
from sklearn.metrics.cluster import contingency_matrix

from ..labels.diagnostics import majorities
from ..labels.similarities import cluster_centres, nearest_clusters
from .runs import Clustered

BLOCK = 4096
SMALL = 4  # images; smaller clusters are tight by chance
IN_HALVES = 512  # images of a cluster that are looked at


@dataclass(frozen=True)
class ClusterStats:
    """Figures of every cluster. C clusters, N images.

    Args:
        sizes: i64 [C].
        cameras: i64 [C], cameras in a cluster.
        mixing: f64 [C], entropy of its images over cameras, in bits.
        tightness: f32 [C], mean cosine of its images to its centre.
        margin: f32 [C], the same less the cosine to the nearest other centre, mean.
        neighbor: i64 [C], the other cluster that is most alike; -1 of a single cluster.
        alike: f32 [C], mean cosine of an image of the one and an image of the other; nan likewise.
        own: f32 [N], cosine of an image to its centre; nan for outliers.
        nearest: i64 [N], the nearest centre that is not the image's own.
        other: f32 [N], cosine to it.
        purity: f64 [C], share of the images with a known identity that have the most frequent one;
            nan where none is known.
        majority: i64 [C], that identity, -1 where none is known.
    """

    sizes: np.ndarray
    cameras: np.ndarray
    mixing: np.ndarray
    tightness: np.ndarray
    margin: np.ndarray
    neighbor: np.ndarray
    alike: np.ndarray
    own: np.ndarray
    nearest: np.ndarray
    other: np.ndarray
    purity: np.ndarray
    majority: np.ndarray

    def same_identity(self, images: Clustered, row: int, cluster: int) -> bool | None:
        """Whether an image is of its cluster's most frequent identity; None where unknown."""
        if images.truth is None or images.truth[row] < 0:
            return None
        return bool(images.truth[row] == self.majority[cluster])


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
    centres = cluster_centres(images.features, labels)
    own, nearest, other = _near(images.features, labels, centres)
    by_camera = contingency_matrix(labels[kept], images.cameras[kept])  # [C, cameras]

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(labels[kept], weights=values[kept], minlength=count) / sizes

    tightness = mean(own)
    means = centres * tightness[:, None].astype(np.float32)
    neighbor, alike = nearest_clusters(means)
    truth = np.full(len(labels), -1) if images.truth is None else images.truth
    majority, of_majority, known = majorities(labels, truth)
    return ClusterStats(
        sizes=sizes,
        cameras=(by_camera > 0).sum(axis=1),
        mixing=entropy(by_camera, base=2, axis=1),
        tightness=tightness,
        margin=mean(own - other),
        neighbor=neighbor,
        alike=alike,
        own=own,
        nearest=nearest,
        other=other,
        purity=np.divide(of_majority, known, out=np.full(count, np.nan), where=known > 0),
        majority=majority,
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


def _first(candidates: np.ndarray, count: int, *keys: np.ndarray) -> np.ndarray:
    return candidates[np.lexsort([key[candidates] for key in reversed(keys)])][:count]


def loosest(stats: ClusterStats, count: int) -> np.ndarray:
    """Clusters that perhaps hold two identities, least tight first; of two images or more."""
    return _first(np.flatnonzero(stats.sizes > 1), count, stats.tightness)


def nearest_pairs(stats: ClusterStats, count: int) -> list[tuple[int, int]]:
    """Clusters that perhaps are one identity twice, most alike first; each pair once.

    By the mean similarity of their images: loose clusters have centres near each other whatever is
    in them. Of the first six pairs of three labellings 6, 2 and 1 were one identity, by the cosine
    of centres 3, 2 and 0.
    """
    order = _first(np.flatnonzero(stats.neighbor >= 0), len(stats.sizes), -stats.alike)
    pairs = (tuple(sorted((int(c), int(stats.neighbor[c])))) for c in order)
    return list(dict.fromkeys((a, b) for a, b in pairs))[:count]


def choose(
    stats: ClusterStats, count: int, *, without: Sequence[int] = ()
) -> list[tuple[str, str, np.ndarray]]:
    """Sheets (title, how they were chosen, clusters in order); a cluster is on one of them.

    Args:
        count: clusters on a sheet.
        without: clusters that are shown already.
    """
    sheets = [
        ("Largest", "most images first", 1, (-stats.sizes,)),
        ("Tightest", f"nearest to their centre first, {SMALL} images or more", SMALL,
         (-stats.tightness,)),
        ("Most mixed over cameras", "most cameras first, evenly filled ones before others", 1,
         (-stats.cameras, -stats.mixing)),
    ]  # fmt: skip
    found, shown = [], set(without)
    for title, rule, fewest, keys in sheets[: 3 if stats.cameras.max() > 1 else 2]:
        left = [c for c in range(len(stats.sizes)) if c not in shown and stats.sizes[c] >= fewest]
        chosen = _first(np.array(left, dtype=np.int64), count, *keys)
        shown |= set(chosen.tolist())
        found += [(title, rule, chosen)] if len(chosen) else []
    return found


def halves(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Splits the images of a cluster where they differ most, along their first principal axis.

    Args:
        features: f32 [n, D], unit rows, n > 1; the half of the first row comes out False.
    Returns:
        bool [n], and the cosine of the halves' centres; 1.0 where equal images leave one empty.
    """
    taken = features[spread(np.arange(len(features)), IN_HALVES)]
    mean = taken.mean(axis=0)
    axis = np.linalg.svd(taken - mean, full_matrices=False)[2][0]
    side = (features - mean) @ axis > 0
    side ^= side[0]
    if not side.any():
        return side, 1.0
    a, b = features[side].mean(axis=0), features[~side].mean(axis=0)
    return side, float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))


def spread(order: np.ndarray, count: int) -> np.ndarray:
    """At most `count` entries of an ordered list, evenly from its first to its last."""
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]


def agreement(images: Clustered) -> tuple[int, int, int, int] | None:
    """How clusters and identities meet, of the images in a cluster; None without identities.

    Returns:
        identities, those in more than one cluster, clusters, those with more than one identity.
    """
    if images.truth is None:
        return None
    kept = (images.labels >= 0) & (images.truth >= 0)
    if not kept.any():
        return None
    meets = contingency_matrix(images.truth[kept], images.labels[kept], sparse=True) > 0
    rows, columns = (np.asarray(meets.sum(axis=axis)).ravel() for axis in (1, 0))
    return len(rows), int((rows > 1).sum()), len(columns), int((columns > 1).sum())


def linked_cameras(images: Clustered) -> tuple[np.ndarray, np.ndarray]:
    """How clusters join cameras.

    Returns:
        cameras i64 [C] in sorted order; f64 [C, C]: of the clusters with an image of the row's
        camera, the share that also holds one of the column's; nan for a camera in no cluster.
    """
    cameras = np.unique(images.cameras)
    kept = images.labels >= 0
    seen = np.isin(cameras, images.cameras[kept])
    holds = contingency_matrix(images.labels[kept], images.cameras[kept]) > 0  # [C, seen cameras]
    share = np.full((len(cameras), len(cameras)), np.nan)
    share[seen] = 0
    share[np.ix_(seen, seen)] = (holds.T.astype(float) @ holds) / holds.sum(axis=0)[:, None]
    return cameras, share
