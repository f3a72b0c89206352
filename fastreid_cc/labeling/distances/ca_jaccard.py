"""Camera-aware Jaccard distance: neighbours are counted within and across cameras separately."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ...registry import DISTANCES, Part
from ...structures import Progress
from ._camera_lists import inter_camera, intra_camera, reciprocal_pairs
from ._overlap import sparse_jaccard
from ._reciprocal import query_expansion, softmax_rows
from ._sparse import by_rows, mirrored
from .jaccard import JaccardDistance


@DISTANCES.register("ca_jaccard")
class CameraAwareJaccardDistance(Part):
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
    """

    name = "ca_jaccard"
    limits = {
        "k1_intra": "[1, inf)",
        "k1_inter": "[1, inf)",
        "k2_intra": "[1, inf)",
        "k2_inter": "[0, inf)",
        "k1": "[1, inf)",
        "k2": "[1, inf)",
    }

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
        if k2_intra > k1_intra or k2_inter > k1_inter:
            raise ValueError(
                f"{self.key}.K2_INTRA={k2_intra}, K2_INTER={k2_inter} must not exceed"
                f" K1_INTRA={k1_intra}, K1_INTER={k1_inter}."
            )
        self.k1_intra, self.k1_inter = k1_intra, k1_inter
        self.k2_intra, self.k2_inter = k2_intra, k2_inter
        self.plain = JaccardDistance(k1=k1, k2=k2)

    def bytes_needed(self, images: int) -> int:
        """Estimate of the memory beyond the features."""
        return self.plain.bytes_needed(images)

    @property
    def neighbors_needed(self) -> int:
        """Neighbours of the largest search."""
        return 2 * (self.k1_intra + self.k1_inter)

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
            max_distance: in (0, 1]; pairs that share no neighbour are never stored.
            cameras: integer [N].
        """
        if cameras is None or len(np.unique(cameras)) < 2:
            return self.plain(features, search, max_distance=max_distance, progress=progress)
        n = len(features)
        camera = np.unique(cameras, return_inverse=True)[1].astype(np.int64)
        intra = intra_camera(features, search, camera, self.k1_intra)
        inter = inter_camera(
            features, search, camera, self.k1_inter, self.neighbors_needed, progress
        )
        pairs = [reciprocal_pairs(part) for part in (intra, inter)]
        rows, columns, similarity = (np.concatenate(part) for part in zip(*pairs, strict=True))
        weights = softmax_rows(n, rows, columns, similarity)
        members = np.concatenate(
            [intra.indices[:, : self.k2_intra], inter.indices[:, : self.k2_inter]], axis=1
        )
        if members.shape[1] > 1:
            weights = by_rows(query_expansion, n, members, *weights)
        indptr, indices, values = mirrored(*sparse_jaccard(weights, max_distance)[::-1])
        return sp.csr_array((values, indices, indptr), shape=(n, n))
