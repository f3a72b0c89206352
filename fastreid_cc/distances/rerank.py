"""Query-gallery block of the k-reciprocal Jaccard distance, for re-ranking in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..registry import NEIGHBORS, discover
from ._reciprocal import reciprocal_weights, sparse_jaccard


def jaccard_query_gallery(
    query: Tensor, gallery: Tensor, *, k1: int = 20, k2: int = 6, search: Any = None
) -> Tensor:
    """Jaccard distance of each query to each gallery image, dense, from the sparse engine.

    Neighbours are searched among queries and gallery together, as fastreid's `build_dist(...,
    metric="jaccard")` does, and the block [:Q, Q:] is returned.

    Args:
        query: f32 [Q, D], scaled to unit length here (as TEST.METRIC "cosine" does).
        gallery: f32 [G, D].
        k1: neighbours per image, the image itself included.
        k2: neighbours averaged by query expansion; 1 is none.
        search: neighbour search, exact by default.
    Returns:
        f32 [Q, G] in [0, 1], on the CPU.
    """
    if search is None:
        discover("fastreid_cc.neighbors")
        search = NEIGHBORS.get("exact")()
    features = torch.nn.functional.normalize(torch.cat([query, gallery]).detach().float())
    n = len(features)
    graph = search(features, min(k1, n))
    weights = reciprocal_weights(graph, features.cpu().contiguous().numpy(), k1, k2)
    out = np.ones((len(query), len(gallery)), np.float32)
    indptr, indices, values = sparse_jaccard(weights, 1.0, low=len(query))[0]
    indptr = indptr[: len(query) + 1]
    out[np.repeat(np.arange(len(query)), np.diff(indptr)), indices - len(query)] = values
    return torch.from_numpy(out)


def rerank_distance(
    query: Tensor,
    gallery: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_: float = 0.3,
    search: Any = None,
) -> Tensor:
    """(1 - lambda) Jaccard + lambda cosine distance, f32 [Q, G], as fastreid's TEST.RERANK."""
    jaccard = jaccard_query_gallery(query, gallery, k1=k1, k2=k2, search=search)
    q = torch.nn.functional.normalize(query.detach().float().cpu())
    g = torch.nn.functional.normalize(gallery.detach().float().cpu())
    return (1 - lambda_) * jaccard + lambda_ * (1 - q @ g.t())
