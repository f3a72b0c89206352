"""Supervised contrastive loss."""

from __future__ import annotations

from torch import Tensor

from ..registry import LOSSES
from .base import PairwiseLoss, masked_logsumexp, mean_over, pair_masks, unit


@LOSSES.register()
class SupCon(PairwiseLoss):
    """Supervised contrastive loss: the mean over positives of -log softmax over all other images.

    Times temperature / base_temperature, mean over the images that have a positive.

    Args:
        temperature: divides the cosines, t.
        base_temperature: the loss is scaled by t / base_temperature.

    Cost: O(B²·D) time, a few B² floats. Source: Khosla et al., arXiv:2004.11362 (the sum outside
    the logarithm). Differs from the common code: images without a positive are left out of the mean
    (there: the whole loss is NaN).

    >>> from fastreid_cc.structures import Batch
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1, 1]))
    >>> SupCon(temperature=0.5)(batch)
    tensor(3.0728)
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
