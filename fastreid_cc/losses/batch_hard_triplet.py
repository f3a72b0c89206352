"""Triplet losses on the hardest, or softly weighted, pairs of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import LOSSES
from .base import (
    LOW,
    PairwiseLoss,
    euclidean_distances,
    identity_masks,
    mean_over,
    softplus,
    unit,
)


@LOSSES.register()
class BatchHardTriplet(PairwiseLoss):
    """Mean of max(0, d+ - d- + margin), or of log(1 + exp(d+ - d-)) if the margin is 0.

    Args:
        margin: wanted distance between positive and negative; 0 = soft margin.
        distance: "euclidean": of the features as they are. "cosine": 2 - 2·cosine.
        mining: "hard": d+ is the distance to the farthest image of the identity, d- to the nearest
            of another. "weighted": means of all distances, weighted by softmax(d) over positives
            and softmax(-d) over negatives.

    Images without an image of another identity cost 0. Cost: O(B²·D) time, a few B² floats.
    Source: Hermans et al., arXiv:1703.07737. Equal to fastreid's TripletLoss on one process, but
    for: images without a negative cost 0 under "weighted" too; no silent change to a hinge of 0.3
    when the soft margin overflows (it does not); labels < 0 are ignored; the whole batch with
    several processes.

    >>> from fastreid_cc.structures import Batch
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1, 1]))
    >>> BatchHardTriplet()(batch), BatchHardTriplet(margin=0.0)(batch)
    (tensor(0.0190), tensor(0.4738))
    """

    limits = {
        "margin": "[0, inf)",
        "distance": ("euclidean", "cosine"),
        "mining": ("hard", "weighted"),
    }

    def __init__(
        self, *, margin: float = 0.3, distance: str = "euclidean", mining: str = "hard"
    ) -> None:
        super().__init__()
        self.margin = margin
        self.distance = distance
        self.mining = mining

    def pairwise(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean over all images with a label."""
        if self.distance == "cosine":
            f = unit(features)
            d = 2 - 2 * (f @ f.T)
        else:
            d = euclidean_distances(features)
        same, other = identity_masks(labels)
        if self.mining == "hard":
            far = d.masked_fill(~same, 0.0).max(1).values
            near = d.masked_fill(~other, -LOW).min(1).values
        else:
            far = (d * softmax_weights(d, same)).sum(1)
            near = (d * softmax_weights(-d, other)).sum(1)
        gap = (far - near).masked_fill(~other.any(1), LOW)
        losses = (gap + self.margin).clamp(min=0) if self.margin else softplus(gap)
        return mean_over(losses, labels >= 0)


def softmax_weights(values: Tensor, mask: Tensor) -> Tensor:
    """exp(v) over its row sum + 1e-6 where `mask`, 0 elsewhere; [B, B].

    Shifted by the largest of 0 and the masked values, so the constant has fastreid's scale.
    """
    shift = values.masked_fill(~mask, 0.0).amax(1, keepdim=True).clamp(min=0)
    weights = torch.where(mask, (values - shift).masked_fill(~mask, 0.0).exp(), 0.0)
    return weights / (weights.sum(1, keepdim=True) + 1e-6)
