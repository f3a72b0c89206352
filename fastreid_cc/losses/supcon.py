"""Supervised contrastive loss."""

from __future__ import annotations

from torch import Tensor

from ..registry import LOSSES
from .base import PairwiseLoss, masked_logsumexp, mean_over, pair_masks, unit


@LOSSES.register()
class SupCon(PairwiseLoss):
    """-(t / base) · mean over anchors of the mean over positives of log softmax over all others.

    Args:
        temperature: divides the cosines, t.
        base_temperature: the loss is scaled by t / base_temperature.

    Source: Khosla et al., arXiv:2004.11362 (the sum outside the logarithm). Differs from the common
    code: anchors without a positive are left out of the mean (there: the whole loss is NaN).
    """

    limits = {"temperature": "(0, inf)", "base_temperature": "(0, inf)"}

    def __init__(self, *, temperature: float = 0.07, base_temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = temperature
        self.base_temperature = base_temperature

    def pairwise(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean over anchors that have a positive."""
        f = unit(features)
        logits = f @ f.T / self.temperature
        positive, negative = pair_masks(labels)
        log_p = logits - masked_logsumexp(logits, positive | negative)[:, None]
        count = positive.sum(1)
        losses = -log_p.masked_fill(~positive, 0.0).sum(1) / count.clamp(min=1)
        return mean_over(losses, count > 0) * self.temperature / self.base_temperature
