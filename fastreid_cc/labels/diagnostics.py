"""What to watch: cluster counts, sizes, cameras per cluster, and agreement with truth if it exists.

Truth is for the log only. A count near the number of people can hide clusters of one camera each,
so cameras per cluster stand beside it.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from ..errors import counted
from .numbering import outliers_as_clusters


def cluster_sizes(labels: np.ndarray) -> np.ndarray:
    """i64 [C], images per cluster."""
    return np.bincount(labels[labels >= 0])


def cameras_per_cluster(labels: np.ndarray, cameras: np.ndarray) -> float:
    """Mean number of cameras in a cluster, 0.0 without clusters."""
    kept = labels >= 0
    if not kept.any():
        return 0.0
    pairs = np.unique(np.stack([labels[kept], cameras[kept]]), axis=1)
    return float(pairs.shape[1] / len(np.unique(labels[kept])))


def majorities(labels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most frequent identity of each cluster, the smallest one of equals.

    Args:
        labels: i64 [N], -1 = outlier.
        truth: i64 [N] identities, -1 = unknown.
    Returns:
        i64 [C] each: that identity, its images, and all images of a known identity; -1, 0 and 0
        for a cluster without any.
    """
    clusters = int(labels.max(initial=-1)) + 1
    majority, images, known = (
        np.full(clusters, -1),
        np.zeros(clusters, int),
        np.zeros(clusters, int),
    )
    kept = (labels >= 0) & (truth >= 0)
    if kept.any():
        rows, names = np.unique(labels[kept]), np.unique(truth[kept])
        table = contingency_matrix(labels[kept], truth[kept], sparse=True)  # [rows, names]
        majority[rows] = names[np.asarray(table.argmax(axis=1)).ravel()]
        images[rows] = table.max(axis=1).toarray().ravel()
        known[rows] = np.asarray(table.sum(axis=1)).ravel()
    return majority, images, known


def purity(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of the clustered images of a known identity that have their cluster's majority's."""
    _, images, known = majorities(labels, truth)
    return float(images.sum() / known.sum()) if known.any() else 0.0


def summarize(
    labels: np.ndarray, cameras: np.ndarray, truth: np.ndarray | None = None
) -> dict[str, float]:
    """Scalars of one labelling, for the log.

    Args:
        labels: i64 [N], -1 = outlier.
        cameras: i64 [N].
        truth: i64 [N] identities, -1 = unknown, or None. With it ARI (outliers as clusters of their
            own), NMI and purity (both over clustered images) are added, over the known images.
    """
    sizes = cluster_sizes(labels)
    found = {
        "num_clusters": float(len(sizes)),
        "num_outliers": float((labels < 0).sum()),
        "outlier_share": float((labels < 0).mean()) if len(labels) else 0.0,
        "size_min": float(sizes.min()) if len(sizes) else 0.0,
        "size_median": float(np.median(sizes)) if len(sizes) else 0.0,
        "size_max": float(sizes.max()) if len(sizes) else 0.0,
        "cameras_per_cluster": cameras_per_cluster(labels, cameras),
    }
    if truth is not None:
        known = truth >= 0
        labels, truth = labels[known], truth[known]
        kept = labels >= 0
        found["ari"] = float(adjusted_rand_score(truth, outliers_as_clusters(labels)))
        found["nmi"] = float(normalized_mutual_info_score(truth[kept], labels[kept]))
        found["purity"] = purity(labels, truth)
    return found


def stability(before: np.ndarray, after: np.ndarray) -> float:
    """How alike two labellings of the same images are: their adjusted Rand index.

    Args:
        before, after: i64 [N], -1 = outlier; outliers count as clusters of their own.
    Returns:
        1 for the same clusters by whatever numbers, about 0 for unrelated ones.
    """
    return float(adjusted_rand_score(outliers_as_clusters(before), outliers_as_clusters(after)))


def summary_line(
    epoch: int,
    found: dict[str, float],
    eps: float | None,
    seconds: float,
    *,
    has_cameras: bool = True,
) -> str:
    """One line for people, from `summarize`'s scalars; of cameras only where there are several."""
    line = (
        f"epoch {epoch}: {counted(found['num_clusters'], 'cluster')},"
        f" {counted(found['num_outliers'], 'outlier')} ({found['outlier_share']:.1%}),"
        f" sizes {found['size_min']:.0f}/{found['size_median']:.0f}/{found['size_max']:.0f}"
        " (min/median/max)"
    )
    if has_cameras:
        line += f", {found['cameras_per_cluster']:.1f} cameras per cluster"
    if eps is not None:
        line += f", eps {eps:.3g}"
    if "ari" in found:
        line += f", ARI {found['ari']:.2f} (logged, never used)"
    return f"{line}, {seconds:.1f} s"
