"""The exact search in torch operators, for features on a GPU (it runs on any device).

The same contract as the compiled one: a product, whose error is bounded, proposes candidates; their
similarities are summed in float64 and rounded once; rows whose candidates cannot be proven to hold
the k nearest are searched again in float64.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...structures import Progress

_SPARE = 64  # candidates beyond k
_SCORES = 1 << 28  # entries of a score block
_GATHERED = 1 << 25  # entries of a block of gathered features


@contextlib.contextmanager
def _full_accumulation() -> Iterator[None]:
    """No TF32 and no bfloat16 partial sums on CUDA: the error bound assumes float32 sums."""
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32, settings.allow_bf16_reduced_precision_reduction
    settings.allow_tf32, settings.allow_bf16_reduced_precision_reduction = False, False
    try:
        yield
    finally:
        settings.allow_tf32, settings.allow_bf16_reduced_precision_reduction = before


def _similarity(features: Tensor, who: Tensor, ids: Tensor) -> Tensor:
    """Cosines f32 [b, c] of rows `who` [b] with rows `ids` [b, c], summed in float64."""
    step = max(1, _GATHERED // (ids.shape[1] * features.shape[1]))
    parts = []
    for at in range(0, len(who), step):
        left = features[who[at : at + step]].double()
        right = features[ids[at : at + step]].double()  # [b, c, D]
        parts.append(torch.einsum("bd,bcd->bc", left, right))
    return torch.cat(parts).float().clamp_(-1, 1)


def _ordered(who: Tensor, ids: Tensor, similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k by similarity, ties by index, the row itself first."""
    ids, order = ids.sort(dim=1)
    similarity = similarity.gather(1, order)
    key = torch.where(ids == who[:, None], torch.full_like(similarity, 2), similarity)
    order = key.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return ids.gather(1, order), similarity.gather(1, order)


def search_on_device(
    features: Tensor, k: int, rows: range, low: bool, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices i64 [M, k] and similarity f32 [M, k] of `rows`, as `ExactKNN` defines them.

    Args:
        features: f32 [N, D], unit rows, on the device that computes.
        k: in [1, N].
        rows: slice of the data set.
        low: multiply in bfloat16.
        progress: called with ("neighbors", rows done, rows in all).

    Cost: 2 M N D operations; 1 GiB of scores, and with `low` a copy of the features (2 N D bytes).
    """
    n, size = features.shape
    stored = features.bfloat16() if low else features
    lost = torch.zeros(n, dtype=torch.float64, device=features.device)
    for at in range(0, n if low else 0, 65536):
        gap = features[at : at + 65536] - stored[at : at + 65536].float()
        lost[at : at + 65536] = gap.double().norm(dim=1)
    error = 1.01 * (lost + lost.max()) + 1.05 * (size + 8) * 2.0**-24 + 1e-6
    error += 2.0**-8 if low else 0.0  # the product is rounded to bfloat16
    step = max(1, min(len(rows), _SCORES // n))
    take = min(n, k + _SPARE)
    indices, similarity = [], []
    with _full_accumulation():
        for at in range(rows.start, rows.stop, step):
            who = torch.arange(at, min(at + step, rows.stop), device=features.device)
            scores, ids = (stored[who] @ stored.t()).float().topk(take, dim=1)
            exact = _similarity(features, who, ids)
            best_ids, best = _ordered(who, ids, exact, k)
            unproven = scores[:, -1] + error[who] >= best[:, -1] if take < n else who < 0
            own_missing = (best_ids[:, 0] != who) if take < n else who < 0
            for row in torch.nonzero(unproven | own_missing)[:, 0].split(max(1, _GATHERED // n)):
                all_ids = torch.arange(n, device=features.device).expand(len(row), n)
                full = (features[who[row]].double() @ features.double().t()).float().clamp_(-1, 1)
                best_ids[row], best[row] = _ordered(who[row], all_ids, full, k)
            indices.append(best_ids.cpu())
            similarity.append(best.cpu())
            if progress:
                progress("neighbors", int(who[-1]) + 1 - rows.start, len(rows))
    return torch.cat(indices).numpy(), torch.cat(similarity).numpy()
