"""Triplets of a pool of images, drawn among the hardest of each query, or at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import ClearError
from ..registry import Part
from .samplers import in_passes

CELLS = 1 << 22  # floats of a table of queries by images at once: 16 MB


class NothingToMine(ClearError):
    """No image of a pool has both a positive and a negative there."""


@dataclass(frozen=True, kw_only=True)
class TripletMining(Part):
    """How triplets (query, positive, negative) are found for losses that read their roles.

    Args:
        pool: images embedded for a round, drawn at random; a smaller training set is taken whole.
        period: steps of a round, between two minings. Labels made anew begin one, too.
        top: a query's triplets of highest loss, one of which is drawn; 0 = any triplet of all
            images, nothing is embedded.
        triplets: triplets of a step, of all processes together: 3 images each.
        skip: share of a query's nearest negatives left out, with pseudo-labels: they are often the
            same identity. With true labels none is.

    Source: Almazan et al., Re-ID done right, arXiv:1801.05339: 5,000 images, 16 steps of 8
    triplets, one of the 25 highest-loss triplets per query (constants from secondary notes). `skip`
    is ours. The order of a query's triplets by loss does not depend on the margin: it is that of
    |q-p|^2 - |q-n|^2, so losses of 0 are told apart too.
    """

    key = "CC.MINING"
    limits = {
        "pool": "[3, inf)",
        "period": "[1, inf)",
        "top": "[0, inf)",
        "triplets": "[1, inf)",
        "skip": "[0, 1)",
    }

    pool: int = 5000
    period: int = 16
    top: int = 25
    triplets: int = 8
    skip: float = 0.01


def draw_queries(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Positions of `count` queries: images with a positive and a negative, all once, then again.

    Args:
        labels: i64 [M], at least 0.
        count: queries wanted.
        generator: source of the draws.

    Raises:
        NothingToMine: with counts, if there is no such image.
    """
    _, who, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    fit = np.flatnonzero((sizes > 1)[who] & (sizes < len(labels))[who])
    if not len(fit):
        raise NothingToMine(
            f"CC.MINING found no triplet: {len(labels):,} images of {len(sizes):,} identities or"
            f" clusters, {int((sizes == 1).sum()):,} of them with one image. A query needs a second"
            " image of its own and an image of another. Raise CC.MINING.POOL; without labels make"
            " larger or more clusters."
        )
    return fit[in_passes(len(fit), count, generator)]


@torch.no_grad()
def mine(
    features: Tensor,
    labels: np.ndarray,
    queries: np.ndarray,
    *,
    top: int,
    skip: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """One triplet per query, drawn uniformly among its `top` of highest loss; positions i64 [Q, 3].

    Args:
        features: [M, D], unit rows, any device.
        labels: i64 [M], at least 0.
        queries: i64 [Q], positions with a positive and a negative.
        top: triplets to draw from, at least 1; fewer where a query has fewer.
        skip: share of each query's nearest negatives left out, rounded down; one stays.
        generator: source of the draws.

    Ties go to the lower position. The `top` highest sums of a positive's and a negative's distance
    lie among the `top` farthest positives and the `top` nearest negatives, so no table larger than
    [b, M] and [b, top, top] is made, b the queries of a chunk. Cost: O(Q·M·(D + log M)).
    """
    device = features.device
    who, rows = torch.from_numpy(labels).to(device), torch.from_numpy(queries).to(device)
    draws = torch.from_numpy(generator.random(len(queries))).to(device)
    corner = min(top, len(labels) - 1) * min(top, int(np.bincount(labels).max()) - 1)
    chunk = max(1, CELLS // max(len(labels), corner))
    parts = [
        _of_chunk(features, who, rows[i : i + chunk], draws[i : i + chunk], top, skip)
        for i in range(0, len(queries), chunk)
    ]
    return torch.cat(parts).cpu().numpy()


def _of_chunk(
    features: Tensor, who: Tensor, rows: Tensor, draws: Tensor, top: int, skip: float
) -> Tensor:
    """As `mine`, of a few queries; draws [b] in [0, 1) choose among the triplets of each."""
    cosine = features[rows] @ features.T  # [b, M]
    same = who[rows][:, None] == who
    positive = same.clone()
    positive[torch.arange(len(rows), device=rows.device), rows] = False
    # hardest first: far positives, near negatives; what is none of them stands behind
    far, far_at = cosine.masked_fill(~positive, torch.inf).sort(dim=1, stable=True)
    near, near_at = cosine.masked_fill(same, -torch.inf).sort(dim=1, descending=True, stable=True)
    others, own = (~same).sum(1), positive.sum(1)
    left_out = torch.minimum((skip * others.double()).long(), others - 1)
    columns = torch.arange(min(top, len(who) - 1), device=rows.device)
    columns = left_out[:, None] + columns  # [b, top]
    beyond = columns >= len(who)
    columns = columns.clamp(max=len(who) - 1)
    near = near.gather(1, columns).masked_fill(beyond, -torch.inf)
    rank = min(top, int(own.max()))
    near_at, far, far_at = near_at.gather(1, columns), far[:, :rank], far_at[:, :rank]
    gap = (near[:, None, :] - far[:, :, None]).flatten(1)  # [b, top * top]
    order = gap.argsort(dim=1, descending=True, stable=True)
    found = torch.minimum(own * (others - left_out), torch.full_like(own, top))
    place = torch.minimum((draws * found).long(), found - 1)[:, None]
    cell = order.gather(1, place)
    positives = far_at.gather(1, cell // near.shape[1])
    negatives = near_at.gather(1, cell % near.shape[1])
    return torch.cat([rows[:, None], positives, negatives], dim=1)


def draw_any(labels: np.ndarray, queries: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One triplet per query, uniform over all of its triplets; positions i64 [Q, 3].

    Args:
        labels: i64 [M], at least 0.
        queries: i64 [Q], positions with a positive and a negative.
        generator: source of the draws.
    """
    order = np.argsort(labels, kind="stable")  # groups of a label side by side
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    group = np.searchsorted(labels[order][first], labels[queries])
    start, size = first[group], sizes[group]
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels))
    own = place[queries] - start
    step = generator.integers(1, size)  # from the query on, around its group
    positives = order[start + (own + step) % size]
    negatives = generator.integers(0, len(labels) - size)
    negatives = order[negatives + np.where(negatives >= start, size, 0)]
    return np.stack([queries, positives, negatives], axis=1)
