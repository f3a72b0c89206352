"""Prototypical loss: a batch of P clusters x K images is an episode of few-shot learning."""

from __future__ import annotations

import torch
from torch import Tensor

from ..parallel.collectives import gather_rows, gather_rows_with_grad
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import Loss, identity_masks, masked_logsumexp, mean_over, unit, whole_batch


@LOSSES.register()
class Prototypes(Loss):
    """Cross-entropy over the prototypes of a batch: mean of -log softmax(-|f - p|² / T) at the own.

    f is an image's unit feature, p the mean of unit features of an identity. An image is compared
    with the prototype that the other images of its identity make, and with those of all others.

    Args:
        temperature: divides squared distances, T; 0.1 is a cosine over 0.05.
        shots: 0 = every image is a query, left out of its own prototype. Else the images of an
            identity with the lowest indices in the data set, so many, make its prototype, and the
            rest are queries, as in an episode; the same image twice is on one side.

    Images without another one of their identity (or, with shots, without a query) cost nothing but
    are prototypes to the others. Cost: O(B²·D) time, a few B² floats. Source: Snell et al.,
    arXiv:1703.05175, as episodes after self-supervised learning: Chen et al., arXiv:1911.06045,
    which has raw features, T 128, and P, K as ways and shots + queries. Leaving one out is ours: no
    image of a batch is spent on a prototype alone.

    >>> from fastreid_cc.structures import Batch
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1, 1]), indices=torch.arange(4))
    >>> Prototypes(temperature=1.0)(batch), Prototypes(temperature=1.0, shots=1)(batch)
    (tensor(0.2283), tensor(0.2860))
    """

    limits = {"temperature": "(0, inf)", "shots": "[0, inf)"}

    def __init__(self, *, temperature: float = 0.1, shots: int = 0) -> None:
        super().__init__()
        self.temperature = temperature
        self.shots = shots

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Mean over the queries of all processes."""
        f = unit(gather_rows_with_grad(batch.features))
        labels, indices = gather_rows(batch.targets), gather_rows(batch.indices)
        return whole_batch(self._episode(f, labels, indices))

    def _episode(self, f: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """The loss of unit rows [B, D] with labels i64 [B], < 0 ignored, of images i64 [B]."""
        same, other = identity_masks(labels)
        supports = same
        if self.shots:  # how many images of the identity come before an image
            before = (same & (indices[None] < indices[:, None])).sum(1)
            supports = same & (before < self.shots)  # [B, B]: column j supports row i's identity
        count = supports.sum(1, keepdim=True)
        sums = supports.to(f.dtype) @ f  # [B, D], equal in all rows of an identity
        means = sums / count.clamp(min=1)
        if self.shots:
            own, is_query = means, ~supports.diagonal() & (count[:, 0] > 0)
        else:
            own, is_query = (sums - f) / (count - 1).clamp(min=1), count[:, 0] > 1
        is_first = ~same.tril(-1).any(1) & (count[:, 0] > 0)  # one row stands for its identity
        squares = f.square().sum(1, keepdim=True) + means.square().sum(1) - 2 * (f @ means.T)
        rest = masked_logsumexp(-squares / self.temperature, other & is_first)
        logit = -(f - own).square().sum(1) / self.temperature
        return mean_over(torch.logaddexp(rest, logit) - logit, is_query & (labels >= 0))
