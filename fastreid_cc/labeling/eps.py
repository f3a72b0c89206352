"""Choosing eps: MMT's automatic rule, and what a sweep over one distance graph says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from ..labels.numbering import outliers_as_clusters
from ..structures import PseudoLabels


def automatic_eps(graph: sp.csr_array, rho: float, cut: float, margin: float = 0.0) -> float:
    """The mean of the smallest rho N (N - 1) / 2 pairwise distances (MMT, Ge et al., ICLR 2020).

    A zero between two images (duplicates; up to 1e-6, rounding) is left out of the mean, as in MMT;
    the share is of all pairs here, of the non-zero ones there.

    Args:
        graph: f32 [N, N], symmetric, pairs at most `cut` apart.
        rho: share of the pairs; MMT uses 1.6e-3.
        cut: radius of the graph.
        margin: how far above eps the graph will be clustered too.
    Raises:
        ValueError: if the graph holds fewer pairs than that, or is cut below eps + margin.

    >>> line = np.array([[0, 0.1, 0.9], [0.1, 0, 0.3], [0.9, 0.3, 0]], np.float32)
    >>> round(automatic_eps(sp.csr_array(line), rho=0.6, cut=0.9), 3)
    0.2

    Limits: the number of pairs grows with N^2, that of same-identity pairs with N, so one rho fits
    one size: 1.6e-3 was set for 13,000 to 16,000 images of 700 identities. Far above that the rule
    reaches past the radius and is refused; far below it is too strict.
    """
    n = graph.shape[0]
    rows = np.repeat(np.arange(n), np.diff(graph.indptr))
    distances = graph.data[(graph.indices > rows) & (graph.data > 1e-6)]
    wanted = max(1, round(rho * n * (n - 1) / 2))
    advice = (
        "The rule does not fit this data set: lower AUTO_RHO, or set AUTO_RHO 0 and choose EPS with"
        " a sweep."
    )
    if len(distances) < wanted:
        raise ValueError(
            f"CC.CLUSTER.DBSCAN.AUTO_RHO={rho} asks for the {wanted:,} nearest pairs of {n:,} "
            f"images, but only {len(distances):,} are within {cut}. {advice}"
        )
    eps = float(np.mean(np.partition(distances, wanted - 1)[:wanted], dtype=np.float64))
    if cut < 1 and eps + margin > cut + 1e-9:
        raise ValueError(
            f"CC.CLUSTER.DBSCAN.AUTO_RHO={rho} gives eps={eps:.4g}, too near the radius {cut:.4g}"
            f" that the distances are cut at. {advice}"
        )
    return eps


@dataclass(frozen=True)
class SweepRow:
    """What one eps gives.

    Args:
        eps: the radius.
        labels: what was found.
        sizes: smallest, median and largest cluster; zeros without clusters.
        stability: adjusted Rand index of the labels with those at the next eps, outliers as single
            clusters; nan for the last eps.
    """

    eps: float
    labels: PseudoLabels
    sizes: tuple[int, float, int]
    stability: float


def sweep_rows(found: Sequence[PseudoLabels]) -> list[SweepRow]:
    """Describes labellings of the same images at ascending eps; one row per labelling.

    >>> tight, loose = (PseudoLabels(np.array(x), 0.1) for x in ([0, 0, -1, -1], [0, 0, 1, 1]))
    >>> [row.sizes for row in sweep_rows([tight, loose])]
    [(2, 2.0, 2), (2, 2.0, 2)]
    """
    from sklearn.metrics import adjusted_rand_score

    alone = [outliers_as_clusters(entry.labels) for entry in found]
    rows = []
    for at, entry in enumerate(found):
        sizes = np.bincount(entry.labels[entry.labels >= 0])
        spread = (int(sizes.min()), float(np.median(sizes)), int(sizes.max())) if len(sizes) else ()
        last = at + 1 == len(found)
        stability = float("nan") if last else float(adjusted_rand_score(alone[at], alone[at + 1]))
        rows.append(SweepRow(float(entry.eps or 0), entry, spread or (0, 0.0, 0), stability))
    return rows
