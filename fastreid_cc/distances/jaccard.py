"""k-reciprocal Jaccard distance with query expansion, as sparse rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ..registry import DISTANCES
from ._reciprocal import mirrored, reciprocal_weights, sparse_jaccard


@DISTANCES.register("jaccard")
class JaccardDistance:
    """k-reciprocal Jaccard distance (Zhong et al., CVPR 2017), sparse."""

    name = "jaccard"

    def __init__(self, *, k1: int = 30, k2: int = 6) -> None:
        if k1 < 1:
            raise ValueError(f"CC.DISTANCE.JACCARD.K1={k1} must be at least 1")
        if not 1 <= k2 <= k1:
            raise ValueError(f"CC.DISTANCE.JACCARD.K2={k2} must lie in [1, K1={k1}]")
        self.k1 = k1
        self.k2 = k2

    def __call__(
        self,
        features: Tensor,
        search: Any,
        *,
        max_distance: float,
        cameras: np.ndarray | None = None,
        progress: Any = None,
    ) -> sp.csr_array:
        """Distances up to `max_distance`; explicit zeros are kept, absent is farther."""
        n = len(features)
        graph = search(features, min(self.k1, n), progress=progress)
        host = features.detach().float().cpu().contiguous().numpy()
        weights = reciprocal_weights(graph, host, self.k1, self.k2)
        upper, lower = sparse_jaccard(weights, max_distance)
        indptr, indices, values = mirrored(lower, upper)
        return sp.csr_array((values, indices, indptr), shape=(n, n))
