"""Choosing eps: MMT's automatic rule, and how stable labels are from one eps to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from ..errors import BadConfig
from ..labels.diagnostics import stability
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
        raise BadConfig(
            f"CC.CLUSTER.DBSCAN.AUTO_RHO={rho} asks for the {wanted:,} nearest pairs of {n:,} "
            f"images, but only {len(distances):,} are within {cut}. {advice}"
        )
    eps = float(np.mean(np.partition(distances, wanted - 1)[:wanted], dtype=np.float64))
    if cut < 1 and eps + margin > cut + 1e-9:
        raise BadConfig(
            f"CC.CLUSTER.DBSCAN.AUTO_RHO={rho} gives eps={eps:.4g}, too near the radius {cut:.4g}"
            f" that the distances are cut at. {advice}"
        )
    return eps


def stabilities(found: Sequence[PseudoLabels]) -> list[float]:
    """How far labels at ascending eps agree: adjusted Rand index of each with the next.

    Outliers count as single clusters. The last one's is nan, as there is no next.

    >>> tight, loose = (PseudoLabels(np.array(x)) for x in ([0, 0, -1, -1], [0, 0, 1, 1]))
    >>> [round(x, 2) for x in stabilities([tight, tight, loose])]
    [1.0, 0.57, nan]
    """
    alike = [stability(one.labels, other.labels) for one, other in pairwise(found)]
    return [*alike, float("nan")][: len(found)]
