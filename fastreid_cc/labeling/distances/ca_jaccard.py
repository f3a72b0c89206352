"""Camera-aware Jaccard distance: neighbours are counted within and across cameras separately."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ...registry import DISTANCES
from ...structures import KnnGraph, Search
from ._reciprocal import query_expansion, softmax_rows
from ._sparse import Csr, by_rows
from .jaccard import JaccardDistance


def reciprocal_pairs(lists: KnnGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (i, j, cosine) with j in i's list and i in j's; both directions are given.

    Args:
        lists: [N, k], -1 where a list is shorter.
    Returns:
        i64 [E], i64 [E] and f32 [E].

    >>> lists = KnnGraph(np.array([[1], [0], [0]]), np.array([[0.5], [0.5], [0.25]], np.float32))
    >>> [part.tolist() for part in reciprocal_pairs(lists)]
    [[0, 1], [1, 0], [0.5, 0.5]]
    """
    n, k = lists.indices.shape
    kept = lists.indices.ravel() >= 0
    rows, columns = np.repeat(np.arange(n), k)[kept], lists.indices.ravel()[kept]
    mutual = np.isin(rows * n + columns, columns * n + rows)
    return rows[mutual], columns[mutual], lists.similarity.ravel()[kept][mutual]


@DISTANCES.register("ca_jaccard")
class CameraAwareJaccardDistance(JaccardDistance):
    """CA-Jaccard (Chen et al., CVPR 2024), sparse.

    R(i) is the union of the k-reciprocal neighbours among the k1_intra nearest images of i's camera
    (i itself included) and among the k1_inter nearest of other cameras; it is not expanded. Weights
    are softmax(-d^2) over R(i), then averaged over the k2_intra nearest images of the same camera
    (i itself included) and the k2_inter nearest of others. The distance is Jaccard's, as usual.
    With one camera, or none given, it is the plain Jaccard distance with k1, k2.

    Re-derived from the paper's definitions; no recording of the authors' code was at hand, so
    equality is tested with a dense oracle only.

    Args:
        k1_intra: neighbours of the same camera, the image itself included.
        k1_inter: neighbours of other cameras.
        k2_intra: nearest images of the same camera averaged, the image itself included.
        k2_inter: nearest images of other cameras averaged.
        k1: as in "jaccard", for data of one camera.
        k2: as in "jaccard", for data of one camera.

    Cost: the search of 2 (k1_intra + k1_inter) neighbours of all images, one search per camera
    within it, and one more per 256 images that have too few neighbours of other cameras in the
    first.

    >>> CameraAwareJaccardDistance(k1_intra=5, k1_inter=20).searches(1000, num_cameras=6)
    (Search(k=5, among='same_camera'), Search(k=20, among='other_cameras'))
    """

    limits = {name: "[1, inf)" for name in ("k1_intra", "k1_inter", "k2_intra")}
    limits["k2_inter"] = "[0, inf)"

    def __init__(
        self,
        *,
        k1_intra: int = 5,
        k1_inter: int = 20,
        k2_intra: int = 2,
        k2_inter: int = 4,
        k1: int = 30,
        k2: int = 6,
    ) -> None:
        super().__init__(k1=k1, k2=k2)
        if k2_intra > k1_intra or k2_inter > k1_inter:
            raise ValueError(
                f"{self.key}.K2_INTRA={k2_intra}, K2_INTER={k2_inter} must not exceed"
                f" K1_INTRA={k1_intra}, K1_INTER={k1_inter}."
            )
        self.k1_intra, self.k1_inter = k1_intra, k1_inter
        self.k2_intra, self.k2_inter = k2_intra, k2_inter

    def searches(self, images: int, num_cameras: int) -> tuple[Search, ...]:
        """Within and across cameras; among all images where there is one camera."""
        if num_cameras < 2:
            return super().searches(images, num_cameras)
        return Search(self.k1_intra, "same_camera"), Search(self.k1_inter, "other_cameras")

    def weights(self, features: Tensor, graphs: Sequence[KnnGraph]) -> Csr:
        """V from the lists within and across cameras; the plain one's from a single list."""
        if len(graphs) == 1:
            return super().weights(features, graphs)
        pairs = [reciprocal_pairs(part) for part in graphs]
        rows, columns, similarity = (np.concatenate(part) for part in zip(*pairs, strict=True))
        weights = softmax_rows(len(features), rows, columns, similarity)
        intra, inter = (graph.indices for graph in graphs)
        members = np.concatenate([intra[:, : self.k2_intra], inter[:, : self.k2_inter]], axis=1)
        if members.shape[1] == 1:
            return weights
        return by_rows(query_expansion, len(features), members, *weights)
