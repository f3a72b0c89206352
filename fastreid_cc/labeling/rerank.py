"""Query-gallery block of the k-reciprocal Jaccard distance, for re-ranking in evaluation."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import KnnGraph
from .distances._overlap import sparse_jaccard
from .distances._reciprocal import reciprocal_weights
from .kernels import dot, jit, run_chunks
from .neighbors.exact import ExactKNN

_SPARE = 16
_SCORES = 1 << 25


@jit
def _half_lengths(start, stop, features, halves):
    for i in range(start, stop):
        halves[i] = dot(features[i], features[i]) / 2


@jit
def _score(start, stop, first, features, halves, candidates, scores):
    """1 - d^2 / 2 of each candidate; above all others for the row itself."""
    for m in range(start, stop):
        i = first + m
        for c in range(candidates.shape[1]):
            j = candidates[m, c]
            scores[m, c] = 1 + dot(features[i], features[j]) - halves[i] - halves[j]
            if i == j:
                scores[m, c] = np.inf


def _euclidean_search(features: np.ndarray, k: int) -> tuple[KnnGraph, np.ndarray]:
    """k nearest rows by Euclidean distance, for rows of any length.

    Returns: the graph, its similarity being 1 - d^2 / 2; and |x|^2 / 2 of each row.

    Candidates come from a float32 product with a few to spare, so the k-th place is exact up to its
    rounding; the order among them is exact, ties by index.
    """
    n = len(features)
    halves = np.empty(n)
    run_chunks(_half_lengths, n, features, halves)
    rows, offset = torch.from_numpy(features), torch.from_numpy(halves).float()
    indices, similarity = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    step = max(1, _SCORES // n)
    for at in range(0, n, step):
        part = rows[at : at + step]
        near = (part @ rows.t() - offset).topk(min(n, k + _SPARE), dim=1).indices
        candidates = near.sort(dim=1).values.numpy()
        scores = np.empty(candidates.shape)
        run_chunks(_score, len(part), at, features, halves, candidates, scores)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        indices[at : at + step] = np.take_along_axis(candidates, order, 1)
        similarity[at : at + step] = np.minimum(np.take_along_axis(scores, order, 1), 1)
    return KnnGraph(indices, similarity), halves


def jaccard_query_gallery(query: Tensor, gallery: Tensor, *, k1: int = 20, k2: int = 6) -> Tensor:
    """Jaccard distance of each query to each gallery image, dense, from the sparse engine.

    Neighbours are searched among queries and gallery together by Euclidean distance, as fastreid's
    `build_dist(..., metric="jaccard")` does, and the block [:Q, Q:] is returned; equal to it within
    1e-6 (tested).

    Args:
        query: f32 [Q, D], of unit length (TEST.METRIC "cosine") or not; taken as they are.
        gallery: f32 [G, D].
        k1: neighbours per image, the image itself included.
        k2: neighbours averaged by query expansion; 1 is none.
    Returns:
        f32 [Q, G] in [0, 1], on the CPU.

    Cost: one search over Q + G images (at least twice as long where rows are not unit), Q G floats.

    >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> jaccard_query_gallery(rows, rows, k1=2, k2=1)
    tensor([[0., 1.],
            [1., 0.]])
    """
    rows = torch.cat([query, gallery]).detach().float().contiguous()
    n, queries = len(rows), len(query)
    halves = np.empty(0)
    if bool(((rows.double().norm(dim=1) - 1).abs() < 1e-5).all()):
        rows = F.normalize(rows.double()).float()
        graph, features = ExactKNN()(rows, min(k1, n)), rows.cpu().numpy()
    else:
        features = rows.cpu().numpy()
        graph, halves = _euclidean_search(features, min(k1, n))
    weights = reciprocal_weights(graph, features, k1, k2, halves)
    out = np.ones((queries, n - queries), np.float32)
    indptr, indices, values = sparse_jaccard(weights, 1.0, low=queries)[0]
    counts = np.diff(indptr[: queries + 1])
    out[np.repeat(np.arange(queries), counts), indices - queries] = values
    return torch.from_numpy(out)
