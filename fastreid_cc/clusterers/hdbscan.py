"""HDBSCAN on the sparse distance graph, by scikit-learn."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ..kernels import number_by_first_image
from ..registry import CLUSTERERS

_FAR = 2.0  # stands for every pair that the graph does not hold; no distance here exceeds 1


def _connected(graph: sp.csr_array) -> sp.csr_array:
    """The graph with its components chained at distance _FAR: scikit-learn wants one piece."""
    first = np.unique(connected_components(graph, directed=False)[1], return_index=True)[1]
    a, b = first[:-1], first[1:]
    data = np.full(2 * len(a), _FAR)
    chain = sp.coo_array((data, (np.r_[a, b], np.r_[b, a])), shape=graph.shape)
    return sp.csr_array(graph + chain)


@CLUSTERERS.register("hdbscan")
class HDBSCAN:
    """HDBSCAN (Campello et al., PAKDD 2013): clusters of any density, no single radius.

    The hierarchy is built from the pairs at most `eps` apart; all others count as equally far, so
    no cluster is held together by them. The same as scikit-learn's on the dense matrix with those
    entries set to a constant (tested).

    Args:
        eps: pairs farther apart do not link images, in (0, 1].
        min_cluster_size: images a cluster must have, at least 2.
        min_samples: neighbours that define an image's density, itself included.

    Cost: as scikit-learn's; about O(E log E) time for E stored distances, a few copies of them.
    """

    consumes: Literal["features", "neighbors", "distances"] = "distances"

    def __init__(
        self, *, eps: float = 0.7, min_cluster_size: int = 4, min_samples: int = 4
    ) -> None:
        if not 0 < eps <= 1:
            raise ValueError(f"CC.CLUSTER.HDBSCAN.EPS={eps} must lie in (0, 1]")
        if min_cluster_size < 2:
            raise ValueError(
                f"CC.CLUSTER.HDBSCAN.MIN_CLUSTER_SIZE={min_cluster_size} must be at least 2"
            )
        if min_samples < 1:
            raise ValueError(f"CC.CLUSTER.HDBSCAN.MIN_SAMPLES={min_samples} must be at least 1")
        self.eps = eps
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples

    def fit_predict(self, x: sp.csr_array, eps: float | None = None) -> np.ndarray:
        """Labels i64 [N], -1 = outlier, from a symmetric f32 [N, N] graph; `eps` as in DBSCAN."""
        from sklearn.cluster import HDBSCAN as SklearnHDBSCAN

        n = x.shape[0]
        if n < max(self.min_cluster_size, 2):
            return np.full(n, -1, np.int64)
        rows = np.repeat(np.arange(n), np.diff(x.indptr))
        near = (x.data <= np.float32(self.eps if eps is None else eps)) & (rows != x.indices)
        data = np.maximum(
            x.data[near].astype(np.float64), 1e-9
        )  # a stored zero means no link there
        graph = sp.csr_array((data, (rows[near], x.indices[near])), shape=x.shape)
        graph = _with_diagonal(_connected(graph))
        model = SklearnHDBSCAN(
            min_cluster_size=self.min_cluster_size,
            min_samples=min(self.min_samples, n),
            metric="precomputed",
            metric_params={"max_distance": _FAR},
            copy=True,
        )
        return number_by_first_image(model.fit(graph).labels_)


def _with_diagonal(graph: sp.csr_array) -> sp.csr_array:
    """The graph with the images themselves as (almost) zero-distance neighbours."""
    return sp.csr_array(graph + 1e-12 * sp.identity(graph.shape[0], format="csr"))
