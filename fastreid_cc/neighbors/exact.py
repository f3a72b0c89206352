"""Exact k nearest neighbours by cosine similarity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..registry import NEIGHBORS
from ..structures import KnnGraph
from ..kernels import cosine, jit, run_chunks
from typing import Any


@jit
def _rank(start, stop, first, features, candidates, k, indices, similarity):  # type: ignore
    for m in range(start, stop):
        i = first + m
        count = candidates.shape[1]
        sims = np.empty(count, np.float32)
        for c in range(count):
            sims[c] = cosine(features[i], features[candidates[m, c]])
            if candidates[m, c] == i:
                sims[c] = 2.0
        order = np.argsort(candidates[m])
        order = order[np.argsort(-sims[order], kind="mergesort")]
        for c in range(k):
            indices[m, c] = candidates[m, order[c]]
            similarity[m, c] = min(sims[order[c]], np.float32(1.0))
        similarity[m, 0] = cosine(features[i], features[i])


@NEIGHBORS.register("exact")
class ExactKNN:
    """First, plain version."""

    def __init__(self, *, precision: str = "auto") -> None:
        self.precision = precision

    def __call__(
        self, features: Tensor, k: int, rows: range | None = None, progress: Any = None
    ) -> KnnGraph:
        """The k nearest rows of each row."""
        n = len(features)
        rows = range(n) if rows is None else rows
        k = min(k, n)
        indices = np.empty((len(rows), k), np.int64)
        similarity = np.empty((len(rows), k), np.float32)
        host = features.float().cpu().contiguous().numpy()
        for a in range(0, len(rows), 1024):
            block = features[rows.start + a : min(rows.start + a + 1024, rows.stop)]
            scores = block @ features.t()
            scores[torch.arange(len(block)), rows.start + a + torch.arange(len(block))] = 3.0
            candidates = scores.topk(min(n, k + 8), dim=1).indices.cpu().numpy()
            run_chunks(_rank, len(block), rows.start + a, host, candidates, k,
                       indices[a : a + len(block)], similarity[a : a + len(block)])
        return KnnGraph(indices, similarity)
