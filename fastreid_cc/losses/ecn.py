"""Exemplar and neighbourhood invariance against an instance memory (ECN)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..registry import LOSSES
from ..structures import Batch, MemoryLike, Positives
from .base import LOW, Loss, unit
from .memory_contrast import batch_mean


@LOSSES.register()
class ECN(Loss):
    """Every image and its nearest neighbours as soft targets among all rows of an instance memory.

    -sum_j w_ij log softmax_j over all rows, mean over images. The own row weighs 1. From
    `start_epoch` on, the other rows among the `neighbors` most similar ones weigh 1 / neighbors
    each; the weights are not scaled to sum 1. Rows never written, and rows that the memory's mask
    leaves out, are nobody's neighbours. Works on the target's images only.

    Args:
        neighbors: most similar rows that are positives too; 0 = own row only.
        start_epoch: first epoch with neighbours, 0 = the first with pseudo-labels.

    Cost: B·N·D and a top-k over N per image. Source: Zhong et al., Invariance Matters, CVPR 2019
    (k 6, from the sixth epoch; weight 0.3 beside 0.7 cross-entropy on the source; camera invariance
    is the same loss on camera-style images). Differs from the authors' code: no dropout between
    unit features and memory.

    >>> from fastreid_cc.memories.instance import InstanceMemory
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> memory = InstanceMemory(init="features", temperature=0.5)
    >>> memory.reset(x, torch.tensor([-1, -1, -1]))
    >>> ECN(neighbors=2, start_epoch=0)(Batch.of(x, torch.arange(3)), memory)
    tensor(1.1679)
    """

    needs_memory = True
    limits = {"neighbors": "[0, inf)", "start_epoch": "[0, inf)"}

    def __init__(self, *, neighbors: int = 6, start_epoch: int = 5) -> None:
        super().__init__()
        self.neighbors = neighbors
        self.start_epoch = start_epoch

    def applies_to(self, part: Literal["target", "source"], memory: MemoryLike | None) -> bool:
        """Only to the target's images."""
        return part == "target"

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Mean over the images with a target."""
        targets, logits = memory.targets(batch), masked_logits(batch, memory)
        k = self.neighbors if memory.epoch >= self.start_epoch else 0
        has_neighbors = targets >= memory.num_sources
        weights, nearest, chosen = neighbor_weights(logits, targets, k, has_neighbors)
        nobody, images = torch.zeros_like(has_neighbors), nearest - memory.num_sources
        self.positives = Positives(batch.indices, images, chosen, nobody) if k else None
        losses = soft_cross_entropy(logits, weights)
        return batch_mean(losses, targets >= 0)


def masked_logits(batch: Batch, memory: MemoryLike) -> Tensor:
    """The memory's logits of a batch, [B, L], LOW where its mask leaves a class out.

    Images without a target keep all classes, so that their softmax stays finite.
    """
    logits, mask = memory.logits(unit(batch.features), batch), memory.loss_mask(batch)
    if mask is None:
        return logits
    return logits.masked_fill(~(mask | (memory.targets(batch) < 0)[:, None]), LOW)


def can_be_positive(logits: Tensor) -> Tensor:
    """Whether a class may be a neighbour, bool [B, L]: not masked, and its row was written.

    A row never written is zero, and so is every logit of it, exactly.
    """
    return (logits > LOW) & (logits != 0)


def neighbor_weights(
    logits: Tensor, targets: Tensor, k: int, has_neighbors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """1/k at the k largest logits where `has_neighbors`, then 1 at the target.

    Returns:
        (weights [B, N], constant; the k largest, i64 [B, k]; which of them are neighbours, bool
        [B, k]: neither the target nor a class that cannot be one).
    """
    usable = can_be_positive(logits.detach())
    largest, nearest = (
        logits.detach().masked_fill(~usable, LOW).topk(min(k, logits.shape[1]), dim=1)
    )
    is_neighbor = (largest > LOW) & has_neighbors[:, None]
    weights = torch.zeros_like(logits)
    weights.scatter_(1, nearest, is_neighbor.to(logits.dtype) / max(k, 1))
    weights.scatter_(1, targets.clamp(min=0)[:, None], 1.0)
    chosen = is_neighbor & (nearest != targets[:, None])
    return weights * (targets >= 0)[:, None], nearest, chosen & (targets >= 0)[:, None]


def soft_cross_entropy(logits: Tensor, weights: Tensor) -> Tensor:
    """-sum_j w_ij log softmax_j, [B]."""
    return -(weights * logits.log_softmax(1)).sum(1)
