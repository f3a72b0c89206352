"""Average-K sets: which classes an image might belong to, K of them per image on average.

A global threshold on softmax probabilities gives few classes for clear images and many for
ambiguous ones. On pseudo-labels the sets serve four ends: soft positives, masked negatives and
rescued outliers (loss `AverageK`), and merges at the next labelling (refiner `merge_proposals`).
Source: Garcin, Servajean, Joly, Salmon, arXiv:2303.18118; uses on pseudo-labels: our proposal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..parallel.collectives import gather_rows, world_size


def threshold(log_scores: Tensor, k: float) -> Tensor:
    """The score that leaves k classes per image on average: midway between v[n] and v[n+1].

    Scores come and go as logarithms, so none is too small to be told from another.

    Args:
        log_scores: [B, C], higher = likelier; equal B on all ranks, which share one threshold.
        k: classes per image, at least 1; n = round(B·k) over all ranks. If n >= B·C, all pass.
    Returns:
        scalar; keep log_scores >= it. Ties at it may keep more than n.

    Cost: top-(n+1) of B·C values; with several ranks their top values are gathered.
    """
    flat = log_scores.detach().flatten()
    size = len(flat) * world_size()
    wanted = max(1, round(log_scores.shape[0] * world_size() * k))
    if wanted >= size:
        return gather_rows(flat.min()[None]).min()
    local = flat.topk(min(wanted + 1, len(flat))).values
    last, next_best = gather_rows(local).topk(wanted + 1).values[-2:]
    return torch.minimum(torch.logaddexp(last, next_best) - math.log(2), last)  # ties stay ties


def ambiguity_sets(logits: Tensor, k: float, targets: Tensor | None = None) -> Tensor:
    """bool [B, C]: classes whose softmax probability passes `threshold`, and the target.

    Args:
        logits: [B, C], -inf = class not allowed; constants (no gradient).
        k: classes per image on average, at least 1.
        targets: i64 [B], added to the sets where >= 0; None = add nothing.
    """
    scores = logits.detach().log_softmax(1).masked_fill(logits == -torch.inf, -torch.inf)
    sets = (scores >= threshold(scores, k)) & (scores > -torch.inf)
    if targets is None:
        return sets
    classes = torch.arange(logits.shape[1], device=logits.device)
    return sets | (classes == targets[:, None])


def cooccurrence(sets: Tensor) -> Tensor:
    """f32 [C, C]: in how many sets two classes stand together; the diagonal counts each class.

    Add the results of an epoch's batches before `merge_proposals`.
    """
    return sets.float().T @ sets.float()


def merge_proposals(counts: Tensor, *, share: float = 0.5) -> Tensor:
    """Class pairs a < b that stand together in more than `share` of the sets that hold either.

    Args:
        counts: [C, C] from `cooccurrence`.
        share: in [0, 1).
    Returns:
        i64 [M, 2], sorted by a, then b.
    """
    single = counts.diagonal()
    either = single[:, None] + single - counts
    together = counts / either.clamp(min=1)
    return torch.nonzero(torch.triu(together > share, diagonal=1))
