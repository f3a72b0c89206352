"""DBSCAN on a sparse distance graph, equal to scikit-learn's."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp

from ..kernels import jit
from ..registry import CLUSTERERS


@jit
def _dbscan(indptr, indices, distances, eps, min_samples):  # type: ignore[no-untyped-def]
    """Clusters grown from core images in order of their index; a border image joins the first."""
    n = indptr.shape[0] - 1
    core = np.zeros(n, np.bool_)
    for i in range(n):
        near = 0
        for p in range(indptr[i], indptr[i + 1]):
            near += distances[p] <= eps
        core[i] = near >= min_samples
    labels = np.full(n, -1, np.int64)
    stack = np.empty(n, np.int64)
    cluster = 0
    for seed in range(n):
        if labels[seed] >= 0 or not core[seed]:
            continue
        labels[seed] = cluster
        stack[0] = seed
        depth = 1
        while depth:
            depth -= 1
            i = stack[depth]
            for p in range(indptr[i], indptr[i + 1]):
                j = indices[p]
                if distances[p] <= eps and labels[j] < 0:
                    labels[j] = cluster
                    if core[j]:
                        stack[depth] = j
                        depth += 1
        cluster += 1
    return labels


@jit
def number_by_first_image(labels):  # type: ignore[no-untyped-def]
    """Renames clusters 0, 1, ... in the order of their first image; negative becomes -1."""
    n = labels.shape[0]
    names = np.full(n + 1, -1, np.int64)
    out = np.full(n, -1, np.int64)
    count = 0
    for i in range(n):
        if labels[i] >= 0:
            if names[labels[i]] < 0:
                names[labels[i]] = count
                count += 1
            out[i] = names[labels[i]]
    return out


@CLUSTERERS.register("dbscan")
class DBSCAN:
    """DBSCAN (Ester et al., KDD 1996) on precomputed sparse distances."""

    consumes: Literal["features", "neighbors", "distances"] = "distances"

    def __init__(self, *, eps: float = 0.6, min_samples: int = 4, auto_rho: float = 0.0) -> None:
        if not 0 < eps <= 2:
            raise ValueError(f"CC.CLUSTER.DBSCAN.EPS={eps} must lie in (0, 2]")
        if min_samples < 1:
            raise ValueError(f"CC.CLUSTER.DBSCAN.MIN_SAMPLES={min_samples} must be at least 1")
        if not 0 <= auto_rho < 1:
            raise ValueError(f"CC.CLUSTER.DBSCAN.AUTO_RHO={auto_rho} must lie in [0, 1)")
        self.eps = eps
        self.min_samples = min_samples
        self.auto_rho = auto_rho

    def fit_predict(self, x: sp.csr_array, eps: float | None = None) -> np.ndarray:
        """Labels i64 [N], -1 = outlier."""
        radius = np.float32(self.eps if eps is None else eps)
        labels = _dbscan(
            x.indptr.astype(np.int64), x.indices.astype(np.int32), x.data, radius, self.min_samples
        )
        return number_by_first_image(labels)
