"""Multi-similarity loss with its pair mining."""

from __future__ import annotations

from torch import Tensor

from ..registry import LOSSES
from .base import LOW, PairwiseLoss, masked_logsumexp, mean_over, pair_masks, softplus, unit


@LOSSES.register()
class MultiSimilarity(PairwiseLoss):
    """Multi-similarity loss with its pair mining.

    Mean over images of 1/alpha·log(1 + sum exp(-alpha(S_p - base))) over positives + the same for
    negatives with beta and the other sign. Kept are negatives with S + m > the least similar
    positive and positives with S - m < the most similar negative, m the mining margin; an image
    without either costs 0.

    Args:
        alpha: weight of the positives.
        beta: weight of the negatives; 50 in the paper, 40 in the AdaSP fork.
        base: the similarity that costs nothing, lambda.
        mining_margin: pairs easier than the hardest one of the other kind by more than this are
            left out.

    Cost: O(B²·D) time, a few B² floats. Source: Wang et al., CVPR 2019, arXiv:1904.06627. Positives
    nearer than 1 - 1e-5 are left out, as in the authors' code. pytorch-metric-learning's loss with
    its miner divides otherwise.

    >>> from fastreid_cc.structures import Batch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [-0.6, 0.8]])
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1, 1]))
    >>> MultiSimilarity()(batch)
    tensor(0.9566)
    """

    limits = {
        "alpha": "(0, inf)",
        "beta": "(0, inf)",
        "base": "[-1, 1]",
        "mining_margin": "[0, inf)",
    }

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        beta: float = 40.0,
        base: float = 0.5,
        mining_margin: float = 0.1,
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.base, self.mining_margin = alpha, beta, base, mining_margin

    def pairwise(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean over all images with a label."""
        f = unit(features)
        s = f @ f.T
        positive, negative = pair_masks(labels)
        positive = positive & (s < 1 - 1e-5)
        worst = s.masked_fill(~positive, -LOW).amin(1, keepdim=True)
        closest = s.masked_fill(~negative, LOW).amax(1, keepdim=True)
        positive = positive & (s - self.mining_margin < closest)
        negative = negative & (s + self.mining_margin > worst)
        pull = softplus(masked_logsumexp(-self.alpha * (s - self.base), positive)) / self.alpha
        push = softplus(masked_logsumexp(self.beta * (s - self.base), negative)) / self.beta
        used = positive.any(1) & negative.any(1)
        return mean_over((pull + push) * used, labels >= 0)
