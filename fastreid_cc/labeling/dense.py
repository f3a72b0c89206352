"""Distances of all pairs as one array, and individuals counted by them; a few thousand images."""

from __future__ import annotations

import numpy as np
import torch

from ..labels.counting import Count, cosine_distances, count_individuals
from .distances.jaccard import JaccardDistance
from .neighbor_lists import find_neighbors
from .neighbors.exact import ExactKNN

MOST = 3000  # images compared
NEIGHBORS = (8, 16)  # k1 of the Jaccard distances beside the cosine


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


def count_unnamed(named: np.ndarray, names: np.ndarray, unnamed: np.ndarray) -> Count:
    """Individuals on images without names, by cosine and Jaccard distances.

    Args:
        named: f32 [M, D], unit rows, of individuals `names` i64 [M].
        unnamed: f32 [N, D], unit rows.

    Of more than 3000 images an even share of both kinds is drawn. Raises, supposes: as
    `labels.counting.count_individuals`.
    """
    labels = np.concatenate([names, np.full(len(unnamed), -1, np.int64)])
    rows = np.sort(np.random.default_rng(0).permutation(len(labels))[:MOST])
    features, labels = np.concatenate([named, unnamed])[rows], labels[rows]
    distances = [dense_jaccard(features, k1) for k1 in NEIGHBORS]
    return count_individuals([cosine_distances(features), *distances], labels)
