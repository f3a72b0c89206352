"""The triplet loss on mined triplets, whose images say what they are."""

from __future__ import annotations

from torch import Tensor

from ..parallel.collectives import gather_rows, gather_rows_with_grad
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import Loss, mean_over, unit, whole_batch


@LOSSES.register()
class MinedTriplet(Loss):
    """Mean over triplets of 1/2 max(0, margin + |q-p|^2 - |q-n|^2), on unit features.

    Args:
        margin: by how much the squared distance to the negative is to exceed the positive's.

    Reads who is whose positive and negative from `Batch.roles`, which CC.MINING fills; targets
    matter only in that a triplet with an image below 0 is left out. Sees the embedding, as the
    mining does. Cost: O(B·D) time, a few B² bools for B images of all processes, whose features are
    gathered.

    Source: Almazan et al., Re-ID done right, arXiv:1801.05339, margin 0.1. Differs: the mean over
    the triplets of a step, where the paper accumulates gradients triplet by triplet.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1]), roles=torch.tensor([0, 1, 2]))
    >>> MinedTriplet()(batch)
    tensor(1.0500)
    """

    needs_roles = True
    limits = {"margin": "[0, inf)"}

    def __init__(self, *, margin: float = 0.1) -> None:
        super().__init__()
        self.margin = margin

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """The mean over whole triplets of all processes."""
        assert batch.roles is not None
        f = unit(gather_rows_with_grad(batch.features))
        targets, roles = gather_rows(batch.targets), gather_rows(batch.roles)
        roles = roles.masked_fill(targets < 0, -1)
        triplet, role = roles.div(3, rounding_mode="floor"), roles.remainder(3)
        together = (triplet[:, None] == triplet) & (triplet >= 0)
        positive, negative = (together & (role == which) for which in (1, 2))
        is_whole = (roles >= 0) & (role == 0) & positive.any(1) & negative.any(1)
        p, n = f[positive.int().argmax(1)], f[negative.int().argmax(1)]
        gap = (f - p).square().sum(1) - (f - n).square().sum(1)
        return whole_batch(mean_over((gap + self.margin).clamp(min=0) / 2, is_whole))
