"""Cluster memory whose rows also move away from their nearest other rows (BMW)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import MEMORIES
from ..structures import Batch
from . import updates
from .cluster import ClusterMemory


@MEMORIES.register("bidirectional")
class BidirectionalMemory(ClusterMemory):
    """`ClusterMemory`; after a step each row that moved is also pushed from its nearest others.

    The update of a row m by an image f is a step of size 1 - momentum down |m - f|^2 / 2. A second
    step of size `push` goes down the mean cosine with the `nearest` other rows n as they were
    before the step: m <- unit(m - push mean(n)). Rows of source classes are others too. With
    `push` 0, or momentum 1, it is `ClusterMemory` to the byte.

    Args:
        temperature: logits are cosines divided by it.
        momentum: weight of the old row.
        update: which images move a row, as in `ClusterMemory`.
        init: what a row starts at, as in `ClusterMemory`.
        push: size of the second step.
        nearest: other rows that a row is pushed from.

    Cost of a step, beside `ClusterMemory`'s: P·(S+C)·D for P rows met (B on CUDA), P·nearest·D
    floats. Source: BMW, Bidirectionally Memory bank reWriting, NeurIPS 2025, re-derived from the
    abstract, which names gradient steps on both objectives, and from a description that says
    "nearest rows", 0.9 for the first step (momentum 0.1) and 0.02, elsewhere 0.2, for the second;
    the paper's own objective between classes, made for one step, could not be read. No parity is
    claimed (grade C).

    >>> memory = BidirectionalMemory(momentum=0.0, push=0.5)
    >>> memory.reset(torch.eye(2), torch.tensor([0, 1]))
    >>> memory.update(Batch.of(torch.eye(2)[:1], torch.tensor([0])))
    >>> memory.rows
    tensor([[ 0.8944, -0.4472],
            [ 0.0000,  1.0000]])
    """

    limits = {"push": "[0, inf)", "nearest": "[1, inf)"}

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        momentum: float = 0.1,
        update: str = "all",
        init: str = "mean",
        push: float = 0.02,
        nearest: int = 1,
    ) -> None:
        super().__init__(temperature=temperature, momentum=momentum, update=update, init=init)
        self.push = push
        self.nearest = nearest

    def update_rows(self, features: Tensor, batch: Batch) -> None:
        """Moves the rows of the batch's targets, then pushes these."""
        if not self.push or self.current_momentum == 1.0 or len(self.rows) < 2:
            super().update_rows(features, batch)
            return
        index = batch.targets.to(self.rows.device)
        slots = index[updates.representatives(index)]
        at = slots.clamp(min=0)
        others = self._nearest_others(at)
        super().update_rows(features, batch)
        moved = self.rows[at]
        pushed = F.normalize(moved - self.push * others)
        self.rows[at] = torch.where(slots[:, None] >= 0, pushed, moved)

    def _nearest_others(self, at: Tensor) -> Tensor:
        """Mean of the `nearest` rows beside each of some rows, [P, D]."""
        similarity = self.rows[at] @ self.rows.T
        similarity = similarity.scatter(1, at[:, None], -torch.inf)
        k = min(self.nearest, len(self.rows) - 1)
        return self.rows[similarity.topk(k, dim=1).indices].mean(1)
