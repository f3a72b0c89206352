"""k-reciprocal Jaccard distance with query expansion, as sparse rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ...registry import DISTANCES
from ...structures import KnnGraph, Progress, Search
from ._overlap import jaccard_graph
from ._reciprocal import reciprocal_weights
from ._sparse import Csr
from .base import Distance, on_host


@DISTANCES.register("jaccard")
class JaccardDistance(Distance):
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

    >>> JaccardDistance(k1=20).searches(1000, num_cameras=6)
    (Search(k=20, among='all'),)
    """

    limits = {"k1": "[1, inf)", "k2": "[1, inf)"}

    def __init__(self, *, k1: int = 30, k2: int = 6) -> None:
        if k2 > k1:
            raise ValueError(f"{self.key}.K2={k2} must not exceed {self.key}.K1={k1}.")
        self.k1 = k1
        self.k2 = k2

    def bytes_needed(self, images: int) -> int:
        """Estimate of the memory beyond features and search (100 weights, 40 pairs per image)."""
        return images * (12 * self.k1 + 100 * 24 + 40 * 24)

    def searches(self, images: int, num_cameras: int) -> tuple[Search, ...]:
        """The k1 nearest among all images."""
        return (Search(min(self.k1, images)),)

    def __call__(
        self,
        features: Tensor,
        graphs: Sequence[KnnGraph],
        *,
        max_distance: float,
        cameras: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> sp.csr_array:
        """See the base; pairs that share no neighbour (distance 1) are never stored."""
        return jaccard_graph(self.weights(features, graphs), max_distance)

    def weights(self, features: Tensor, graphs: Sequence[KnnGraph]) -> Csr:
        """V of all images, one sparse row each, after query expansion."""
        return reciprocal_weights(graphs[0], on_host(features), self.k1, self.k2)
