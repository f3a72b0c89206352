"""k-reciprocal Jaccard distance with query expansion, as sparse rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ...registry import DISTANCES, Part
from ...structures import Progress
from ._overlap import sparse_jaccard
from ._reciprocal import reciprocal_weights
from ._sparse import mirrored


@DISTANCES.register("jaccard")
class JaccardDistance(Part):
    """k-reciprocal Jaccard distance with query expansion, exactly as Cluster Contrast uses it.

    R(i) holds the images among i's k1 nearest that have i among theirs; it grows by R(c, half) for
    each c in it with 3 |R(c, half) and R(i)| > 2 |R(c, half)|, half = round(k1 / 2) + 1 (half to
    even); V_i = softmax(-d^2) over it, d^2 = 2 - 2 cos; V_i becomes the mean of V over i's k2
    nearest; distance = 1 - s / (2 - s), s = sum of min(V_i, V_j). All lists count the image itself.

    Source: Zhong et al., CVPR 2017, arXiv:1701.08398, in the form of SpCL, Cluster Contrast and
    fastreid. Differs from them in memory only: no N x N array is made.

    Args:
        k1: neighbours per image, itself included; N where there are fewer images.
        k2: neighbours averaged by query expansion, itself included; 1 is none.

    Cost: after the search, time linear in the pairs of images that share a neighbour's neighbour;
    16 bytes per entry of V (some 100 per image) and 24 per stored pair.
    """

    name = "jaccard"
    limits = {"k1": "[1, inf)", "k2": "[1, inf)"}

    def __init__(self, *, k1: int = 30, k2: int = 6) -> None:
        if k2 > k1:
            raise ValueError(f"{self.key}.K2={k2} must not exceed {self.key}.K1={k1}.")
        self.k1 = k1
        self.k2 = k2

    def bytes_needed(self, images: int) -> int:
        """Estimate of the memory beyond features and search (100 weights, 40 pairs per image)."""
        return images * (12 * self.k1 + 100 * 24 + 40 * 24)

    @property
    def neighbors_needed(self) -> int:
        """Neighbours of the search."""
        return self.k1

    def __call__(
        self,
        features: Tensor,
        search: Any,
        *,
        max_distance: float,
        cameras: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> sp.csr_array:
        """Distances up to `max_distance`, f32 [N, N], symmetric; zeros stored, absent is farther.

        Args:
            features: f32 [N, D], unit rows.
            search: a neighbour search.
            max_distance: in (0, 1]; pairs that share no neighbour (distance 1) are never stored.
            cameras: not used.
            progress: passed to the search.
        """
        n = len(features)
        graph = search(features, min(self.k1, n), progress=progress)
        host = features.detach().cpu().contiguous().numpy()
        weights = reciprocal_weights(graph, host, self.k1, self.k2)
        upper, lower = sparse_jaccard(weights, max_distance)
        indptr, indices, values = mirrored(lower, upper)
        return sp.csr_array((values, indices, indptr), shape=(n, n))
