"""Connected components of the distance graph: the fastest clusterer, with a size floor."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ...labels.numbering import number_by_first_image
from ...registry import CLUSTERERS, Part


@CLUSTERERS.register("components")
class ConnectedComponents(Part):
    """Images linked by a chain of pairs at most `eps` apart share a cluster (single linkage).

    Equal to DBSCAN with min_samples 1, then clusters below `min_size` are outliers. Chains of
    bridging images merge identities, so eps must be tighter than DBSCAN's.

    Args:
        eps: distance up to which two images are linked.
        min_size: images a cluster must have.

    Cost: time linear in the stored distances.
    """

    consumes: Literal["features", "neighbors", "distances"] = "distances"
    limits = {"eps": "(0, 1]", "min_size": "[1, inf)"}

    def __init__(self, *, eps: float = 0.4, min_size: int = 2) -> None:
        self.eps = eps
        self.min_size = min_size

    def fit_predict(self, x: sp.csr_array, eps: float | None = None) -> np.ndarray:
        """Labels i64 [N], -1 = outlier, from a symmetric f32 [N, N] graph; `eps` as in DBSCAN."""
        near = (x.data <= np.float32(self.eps if eps is None else eps)).astype(np.uint8)
        links = sp.csr_array((near, x.indices, x.indptr), shape=x.shape, copy=True)
        links.eliminate_zeros()
        labels = connected_components(links, directed=False)[1].astype(np.int64)
        if len(labels):
            labels[np.bincount(labels)[labels] < self.min_size] = -1
        return number_by_first_image(labels)
