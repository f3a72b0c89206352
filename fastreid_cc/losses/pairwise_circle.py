"""Pairwise circle loss and its constant-weight form, pairwise CosFace."""

from __future__ import annotations

from torch import Tensor

from ..registry import LOSSES
from .base import PairwiseLoss, masked_logsumexp, mean_over, pair_masks, softplus, unit


class _Pairwise(PairwiseLoss):
    limits = {"margin": "[0, 1)", "temperature": "(0, inf)"}

    def __init__(self, *, margin: float = 0.25, temperature: float = 0.0078125) -> None:
        super().__init__()
        self.margin = margin
        self.temperature = temperature

    def logits(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Exponents of positives and of negatives, [B, B] each, from cosines."""
        raise NotImplementedError

    def pairwise(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean over all images with a label; without a positive or a negative an image costs 0."""
        f = unit(features)
        positive, negative = pair_masks(labels)
        pull, push = self.logits(f @ f.T)
        total = masked_logsumexp(pull, positive) + masked_logsumexp(push, negative)
        return mean_over(softplus(total), labels >= 0)


@LOSSES.register()
class PairwiseCircle(_Pairwise):
    """Mean of softplus(LSE -g·a+·(S_p - 1 + m) + LSE g·a-·(S_n - m)), a+ and a- constants.

    LSE is the log-sum-exp over an image's positives p or negatives n;
    a+ = max(0, 1 + m - S_p), a- = max(0, S_n + m).

    Args:
        margin: margin m kept between positives and negatives.
        temperature: 1 / g; the paper's g = 128, fastreid's SCALE.

    Cost: O(B²·D) time, a few B² floats. Source: Sun et al., CVPR 2020, arXiv:2002.10857. Equal to
    fastreid's CircleLoss on one process; here labels < 0 are ignored and the batch is that of all
    processes.

    >>> from fastreid_cc.structures import Batch
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1, 1]))
    >>> PairwiseCircle(temperature=1 / 8)(batch)
    tensor(1.6027)
    """

    def logits(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Exponents with their self-paced weights."""
        m, g, fixed = self.margin, 1 / self.temperature, s.detach()
        pull = -g * (1 + m - fixed).clamp(min=0) * (s - (1 - m))
        return pull, g * (fixed + m).clamp(min=0) * (s - m)


@LOSSES.register()
class PairwiseCosface(_Pairwise):
    """Mean of softplus(LSE -g·S_p + LSE g·(S_n + m)), LSE as in `PairwiseCircle`.

    Args:
        margin: margin m kept between positives and negatives.
        temperature: 1 / g; the paper's g = 128, fastreid's SCALE.

    Cost: O(B²·D) time, a few B² floats. Source: Sun et al., CVPR 2020, arXiv:2002.10857 (its
    unified form). Equal to fastreid's Cosface.

    >>> from fastreid_cc.structures import Batch
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1, 1]))
    >>> PairwiseCosface(temperature=1 / 8)(batch)
    tensor(0.4651)
    """

    def logits(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Exponents with constant weights."""
        g = 1 / self.temperature
        return -g * s, g * (s + self.margin)
