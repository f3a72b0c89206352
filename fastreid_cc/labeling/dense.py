"""Distances of all pairs as one array, for a few thousand images."""

from __future__ import annotations

import numpy as np
import torch

from .distances.jaccard import JaccardDistance
from .neighbor_lists import find_neighbors
from .neighbors.exact import ExactKNN


def dense_jaccard(features: np.ndarray, k1: int) -> np.ndarray:
    """Jaccard distances f32 [N, N] by k1 reciprocal neighbours, k2 a fifth of them.

    Args:
        features: f32 [N, D], unit rows.
        k1: neighbours, the image itself included; all images if there are fewer.

    Cost: O(N^2 D) time, N^2 floats.
    """
    rows = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    k1 = min(k1, len(rows))
    measure = JaccardDistance(k1=k1, k2=max(1, k1 // 5))
    graphs = find_neighbors(ExactKNN(), rows, measure.searches(len(rows), 1))
    near = measure(rows, graphs, max_distance=1.0).tocoo()
    found = np.ones((len(rows), len(rows)), np.float32)
    found[near.row, near.col] = near.data
    np.fill_diagonal(found, 0)
    return np.minimum(found, found.T)
