"""Cosine distance as a radius graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ...registry import DISTANCES
from ...structures import KnnGraph, Progress, Search
from ..kernels import cosine, jit, run_chunks
from .base import Distance, on_host

_BLOCK = 1024


@jit
def _score_pairs(start, stop, rows, columns, features, distances):
    for p in range(start, stop):
        similarity = cosine(features[rows[p]], features[columns[p]])
        distances[p] = max(np.float32(1) - similarity, np.float32(0))


@DISTANCES.register("cosine")
class CosineDistance(Distance):
    """1 - cosine of all pairs within the radius; in [0, 2], of use up to 1.

    Args:
        k1: if above 0, only pairs of which one is among the other's k1 nearest are kept (then the
            search in use decides, and memory is at most 2 k1 N pairs); 0 is every pair in range.
        max_pairs: pairs per image, on average, that are allowed before the graph is refused.

    Cost: N^2 D operations without k1. 12 bytes per stored pair, about three times that at the peak.

    >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> graph = CosineDistance()(rows, (), max_distance=0.3)
    >>> graph.toarray().astype(float).round(3).tolist()
    [[0.0, 0.2, 0.0], [0.2, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """

    limits = {"k1": "[0, inf)", "max_pairs": "[1, inf)"}

    def __init__(self, *, k1: int = 0, max_pairs: int = 1000) -> None:
        self.k1 = k1
        self.max_pairs = max_pairs

    def bytes_needed(self, images: int) -> int:
        """Estimate of the memory beyond the features: about 100 pairs per image."""
        return images * 24 * (2 * self.k1 or 100)

    def searches(self, images: int, num_cameras: int) -> tuple[Search, ...]:
        """The k1 nearest among all images, if k1 is set."""
        return (Search(min(self.k1, images)),) if self.k1 else ()

    def __call__(
        self,
        features: Tensor,
        graphs: Sequence[KnnGraph],
        *,
        max_distance: float,
        cameras: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> sp.csr_array:
        """See the base.

        Raises:
            ValueError: if more than `max_pairs` N pairs are in range.
        """
        host = on_host(features)
        n = len(host)
        if self.k1:
            graph = graphs[0]
            rows, columns = np.repeat(np.arange(n), graph.k), graph.indices.ravel()
            low, high = np.minimum(rows, columns), np.maximum(rows, columns)
            pairs = np.unique(low[low < high] * n + high[low < high])
            rows, columns = pairs // n, pairs % n
        else:
            rows, columns = self._pairs_in_range(features.detach(), max_distance, progress)
        distances = np.empty(len(rows), np.float32)
        run_chunks(_score_pairs, len(rows), rows, columns, host, distances, rows_per_chunk=65536)
        near = distances <= np.float32(max_distance)
        rows, columns, distances = rows[near], columns[near], distances[near]
        own = np.arange(n)
        both = np.r_[rows, columns, own], np.r_[columns, rows, own]
        data = np.r_[distances, distances, np.zeros(n, np.float32)]
        return sp.csr_array((data, both), shape=(n, n))

    def _pairs_in_range(
        self, features: Tensor, max_distance: float, progress: Progress | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pairs i < j whose product reaches 1 - max_distance, up to twice its rounding error."""
        n, size = features.shape
        least = 1 - max_distance - 2.1 * (size + 8) * 2.0**-24 - 1e-5
        rows, columns, count = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for a in range(0, n, _BLOCK):
            for b in range(a, n, _BLOCK):
                scores = features[a : a + _BLOCK] @ features[b : b + _BLOCK].t()
                if a == b:
                    scores = scores.triu(1) - 3 * torch.ones_like(scores).tril()
                i, j = torch.nonzero(scores >= least, as_tuple=True)
                rows.append((i + a).cpu().numpy())
                columns.append((j + b).cpu().numpy())
                count += len(i)
                if count > self.max_pairs * n:
                    raise ValueError(
                        f"more than {self.max_pairs} pairs per image are within cosine distance "
                        f"{max_distance}; lower eps, set CC.DISTANCE.COSINE.K1, or raise MAX_PAIRS"
                    )
            if progress:
                progress("neighbors", min(a + _BLOCK, n), n)
        return np.concatenate(rows), np.concatenate(columns)
