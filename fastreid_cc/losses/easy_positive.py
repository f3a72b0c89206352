"""Easy positive, hard negative."""

from __future__ import annotations

from torch import Tensor

from ..registry import LOSSES
from .base import LOW, PairwiseLoss, mean_over, pair_masks, softplus, unit


@LOSSES.register()
class EasyPositive(PairwiseLoss):
    """softplus((most similar negative - most similar positive) / temperature), mean over images.

    Positives more similar than 0.9999 (copies) are passed over; images whose chosen positive or
    negative has no positive cosine are left out.

    Args:
        temperature: divides the difference of the two cosines.
        semi_hard: take the hardest negative among those no more similar than the positive.

    Cost: O(B²·D) time, a few B² floats. Source: Xuan et al., WACV 2020, arXiv:1904.04370, with the
    thresholds of the AdaSP fork. Differs from it: 0 instead of NaN when no image is left.

    >>> from fastreid_cc.structures import Batch
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.8, 0.6]])
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1, 1]))
    >>> EasyPositive()(batch)
    tensor(0.4100)
    """

    limits = {"temperature": "(0, inf)"}

    def __init__(self, *, temperature: float = 0.1, semi_hard: bool = False) -> None:
        super().__init__()
        self.temperature = temperature
        self.semi_hard = semi_hard

    def pairwise(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean over the anchors left."""
        f = unit(features)
        s = f @ f.T
        positive, negative = pair_masks(labels)
        easiest = s.masked_fill(~(positive & (s <= 0.9999)), LOW).max(1).values
        if self.semi_hard:
            negative = negative & (s <= easiest[:, None])
        hardest = s.masked_fill(~negative, LOW).max(1).values
        used = (easiest > 0) & (hardest > 0)
        difference = ((hardest - easiest) / self.temperature).masked_fill(~used, 0.0)
        return mean_over(softplus(difference), used)
