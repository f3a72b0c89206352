"""Exemplar and neighbourhood invariance against an instance memory (ECN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import LOSSES
from ..structures import Batch
from .base import Loss, unit
from .memory_contrast import batch_mean


@LOSSES.register()
class ECN(Loss):
    """-sum_j w_ij log softmax_j over all rows, mean over images.

    The own row weighs 1. From `start_epoch` on, the other rows among the `neighbors` most similar
    ones weigh 1 / neighbors each; the weights are not scaled to sum 1. Source images (targets below
    the memory's num_sources) have no neighbours.

    Args:
        neighbors: k; 0 = own row only.
        start_epoch: first epoch (from 0) with neighbours; the memory holds the epoch.

    Cost: B·N·D and a top-k over N per image. Source: Zhong et al., Invariance Matters, CVPR 2019
    (k 6, from the sixth epoch; weight 0.3 beside 0.7 cross-entropy on the source; camera invariance
    is the same loss on camera-style images). Differs from the authors' code: no dropout between
    unit features and memory.
    """

    needs_memory = True
    trained_on = "target"
    limits = {"neighbors": "[0, inf)", "start_epoch": "[0, inf)"}

    def __init__(self, *, neighbors: int = 6, start_epoch: int = 5) -> None:
        super().__init__()
        self.neighbors = neighbors
        self.start_epoch = start_epoch

    def compute(self, batch: Batch, memory: nn.Module | None) -> Tensor:
        """Mean over the images with a target."""
        assert memory is not None
        targets = memory.targets(batch)  # type: ignore[operator]
        logits = memory.logits(unit(batch.features), batch)  # type: ignore[operator]
        mask = memory.loss_mask(batch)  # type: ignore[operator]
        if mask is not None:
            logits = logits.masked_fill(~(mask | (targets < 0)[:, None]), -1e30)
        k = self.neighbors if int(memory.epoch) >= self.start_epoch else 0  # type: ignore[arg-type]
        has_neighbors = targets >= int(memory.num_sources)  # type: ignore[arg-type]
        losses = soft_cross_entropy(logits, neighbor_weights(logits, targets, k, has_neighbors))
        return batch_mean(losses, targets >= 0)


def neighbor_weights(logits: Tensor, targets: Tensor, k: int, has_neighbors: Tensor) -> Tensor:
    """1/k at the k largest logits where `has_neighbors`, then 1 at the target; [B, N], constant."""
    weights = torch.zeros_like(logits)
    k = min(k, logits.shape[1])
    if k:
        nearest = logits.detach().topk(k, dim=1).indices
        weights.scatter_(1, nearest, 1.0 / k)
        weights *= has_neighbors[:, None]
    weights.scatter_(1, targets.clamp(min=0)[:, None], 1.0)
    return weights * (targets >= 0)[:, None]


def soft_cross_entropy(logits: Tensor, weights: Tensor) -> Tensor:
    """-sum_j w_ij log softmax_j, [B]."""
    return -(weights * logits.log_softmax(1)).sum(1)
