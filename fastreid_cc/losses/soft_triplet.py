"""Soft triplets from a mean teacher: how much nearer its positive is, is the network's target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parallel.collectives import gather_rows, gather_rows_with_grad
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import LOW, Loss, euclidean_distances, identity_masks, mean_over, whole_batch


@LOSSES.register()
class SoftTriplet(Loss):
    """Soft triplets from a mean teacher: how much nearer a positive is than a negative, is learnt.

    Cross-entropy between sigmoid(d- - d+) of the network and of its teacher, mean over images.
    d+ is the Euclidean distance to the network's farthest image of the identity, d- to its nearest
    of another one; the teacher's distances are those of the same pairs. Features are used as they
    are, not scaled. Images without an image of another identity cost nothing.

    Cost: O(B²·D) for the batch of all processes. Source: Ge et al., Mutual Mean-Teaching, ICLR 2020
    (softmax-triplet, weight 0.8). Differs: the whole batch with several processes; labels < 0 are
    ignored.

    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> SoftTriplet()(Batch.of(x, torch.tensor([0, 0, 1, 1]), teacher_features=2 * x))
    tensor(0.5901)
    """

    needs_teacher = True

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Mean over the images with a target."""
        assert batch.teacher_features is not None
        taught = gather_rows(batch.teacher_features.to(batch.features.dtype))
        features, labels = gather_rows_with_grad(batch.features), gather_rows(batch.targets)
        return whole_batch(soft_triplet(features, taught, labels))


def soft_triplet(features: Tensor, taught: Tensor, labels: Tensor) -> Tensor:
    """The loss of rows [B, D] taught by rows [B, D'] with labels i64 [B], < 0 ignored."""
    same, other = identity_masks(labels)
    d, t = euclidean_distances(features), euclidean_distances(taught)
    far = d.detach().masked_fill(~same, LOW).argmax(1, keepdim=True)
    near = d.detach().masked_fill(~other, -LOW).argmin(1, keepdim=True)
    gap = (d.gather(1, near) - d.gather(1, far))[:, 0]
    wanted = (t.gather(1, near) - t.gather(1, far))[:, 0].sigmoid().detach()
    losses = -(wanted * F.logsigmoid(gap) + (1 - wanted) * F.logsigmoid(-gap))
    return mean_over(torch.where(other.any(1), losses, 0.0), labels >= 0)
