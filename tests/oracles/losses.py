"""Slow restatements of the memories and losses: loops over samples, in the papers' symbols."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastreid_cc.memories.cluster import ClusterMemory
from fastreid_cc.structures import Batch


def make_batch(features, targets, cameras=None, indices=None):
    zeros = torch.zeros(len(targets), dtype=torch.int64)
    return Batch(
        features,
        targets,
        zeros if indices is None else indices,
        zeros if cameras is None else cameras,
    )


def filled(rows, **kwargs):
    """A cluster memory with the given rows."""
    memory = ClusterMemory(**kwargs)
    memory.reset(rows, torch.arange(len(rows)))
    return memory


def unit_rows(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def sequential_update(M: Tensor, y: Tensor, f: Tensor, m: float) -> Tensor:
    """Every sample in batch order: M_y <- unit(m M_y + (1 - m) f). Returns a new memory."""
    M = M.clone()
    for i in range(len(y)):
        if y[i] >= 0:
            M[y[i]] = unit(m * M[y[i]] + (1 - m) * f[i])
    return M


def hard_update(M: Tensor, y: Tensor, f: Tensor, m: float) -> Tensor:
    """Per row, the sample least similar to it; the first of equals."""
    new = M.clone()
    for c in sorted({int(c) for c in y if c >= 0}):
        members = [i for i in range(len(y)) if y[i] == c]
        hardest = min(members, key=lambda i: float(f[i] @ M[c]))
        new[c] = unit(m * M[c] + (1 - m) * f[hardest])
    return new


def mean_update(M: Tensor, y: Tensor, f: Tensor, m: float, *, unit_means: bool = False) -> Tensor:
    """Per row, the mean of its samples."""
    new = M.clone()
    for c in sorted({int(c) for c in y if c >= 0}):
        mean = sum(f[i] for i in range(len(y)) if y[i] == c) / sum(int(v == c) for v in y)
        new[c] = unit(m * M[c] + (1 - m) * (unit(mean) if unit_means else mean))
    return new


def memory_contrast(
    x: Tensor, M: Tensor, y: Tensor, t: float, mask: Tensor | None = None
) -> Tensor:
    """Mean of -log softmax over the rows that `mask` keeps."""
    total, count = x.new_zeros(()), 0
    for i in range(len(x)):
        if y[i] < 0:
            continue
        f = unit(x[i])
        kept = [j for j in range(len(M)) if mask is None or mask[i, j]]
        z = [f @ M[j] / t for j in kept]
        total = total - f @ M[y[i]] / t + torch.stack(z).logsumexp(0)
        count += 1
    return total / max(count, 1)


def camera_entropy_weights(y: Tensor, cameras: Tensor) -> Tensor:
    """w = P e^{H_c} / sum e^H with H in bits over the cameras of a cluster in the batch."""
    H = {}
    for c in {int(c) for c in y if c >= 0}:
        cams = [int(k) for k, t in zip(cameras, y, strict=True) if t == c]
        shares = [cams.count(k) / len(cams) for k in set(cams)]
        H[c] = -sum(p * math.log2(p) for p in shares)
    total = sum(math.exp(h) for h in H.values())
    return torch.tensor([len(H) * math.exp(H[int(c)]) / total if c >= 0 else 0.0 for c in y])
