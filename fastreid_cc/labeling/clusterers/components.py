"""Connected components of the distance graph: the fastest clusterer, with a size floor."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ...registry import CLUSTERERS
from .base import Clusterer


@CLUSTERERS.register("components")
class ConnectedComponents(Clusterer[sp.csr_array]):
    """Images linked by a chain of pairs at most `eps` apart share a cluster (single linkage).

    Equal to DBSCAN with min_samples 1, then clusters below `min_size` are outliers. Chains of
    bridging images merge identities, so eps must be tighter than DBSCAN's.

    Args:
        eps: distance up to which two images are linked.
        min_size: images a cluster must have.

    Cost: time linear in the stored distances.

    >>> chain = np.array([[0, 0.1, 0.9], [0.1, 0, 0.2], [0.9, 0.2, 0]], np.float32)
    >>> ConnectedComponents(eps=0.2).fit_predict(sp.csr_array(chain))
    [array([0, 0, 0])]
    """

    consumes = "distances"
    limits = {"eps": "(0, 1]", "min_size": "[1, inf)"}

    def __init__(self, *, eps: float = 0.4, min_size: int = 2) -> None:
        self.eps = eps
        self.min_size = min_size

    def cluster(self, x: sp.csr_array, eps: float | None) -> np.ndarray:
        """Labels i64 [N] of the images of a graph f32 [N, N] at one radius."""
        near = (x.data <= np.float32(eps)).astype(np.uint8)
        links = sp.csr_array((near, x.indices, x.indptr), shape=x.shape, copy=True)
        links.eliminate_zeros()
        labels = connected_components(links, directed=False)[1].astype(np.int64)
        if len(labels):
            labels[np.bincount(labels)[labels] < self.min_size] = -1
        return labels
