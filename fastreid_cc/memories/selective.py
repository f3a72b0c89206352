"""Hybrid memory that takes an image's feature only where its class is the nearest one (SCL)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..labels.numbering import Outliers
from ..registry import MEMORIES
from ..structures import Batch
from .hybrid import HybridMemory

_ROWS = 512  # rows compared with all others at once


@MEMORIES.register("selective")
class SelectiveMemory(HybridMemory):
    """A hybrid memory with a selective update, and the reach of every row.

    An image moves its row only if the class with the largest logit is its own: a pseudo-label that
    the memory contradicts is taken for wrong. Source images always do, their labels are true. The
    share of the target's images that did is logged as "cc/memory_accepted".

    Args:
        temperature: as in `HybridMemory`.
        momentum: as in `HybridMemory`.
        update: as in `HybridMemory`.
        outliers: as in `HybridMemory`; by default images in no cluster are left out.
        reinit: as in `HybridMemory`; by default every labelling takes new features.
        accept: whose features are written: "nearest", as above; "all", as in `HybridMemory`.
        reciprocal: neighbours, k, that `reach` is measured to; for SelectiveContrast.

    Attributes:
        reach: f32 [R], cosine of each row to its k-th nearest other row when the rows were set.

    Cost: that of `HybridMemory`; for the update B·L·D more; for a reset R²·D more, on the device of
    the given features, 512 rows at a time.
    Source: Jia et al., Mind Your Clever Neighbours, arXiv:2112.01839, re-derived from the abstract,
    which names a selective update of the memory and no rule; no parity is claimed.

    >>> memory = SelectiveMemory(momentum=0.0)
    >>> memory.reset(torch.eye(3), torch.tensor([0, 0, 1]))
    >>> wrong = torch.tensor([[0.0, 0.0, 1.0]])  # an image of cluster 0 that looks like cluster 1
    >>> memory.update(Batch.of(wrong, torch.tensor([0])))
    >>> memory.rows[0], memory.figures.take()
    (tensor([1., 0., 0.]), {'accepted': (0.0, 1.0)})
    """

    reach: Tensor
    limits = {"accept": ("nearest", "all"), "reciprocal": "[1, inf)"}

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        momentum: float = 0.2,
        update: str = "all",
        outliers: Outliers = "drop",
        reinit: bool = True,
        accept: str = "nearest",
        reciprocal: int = 20,
    ) -> None:
        super().__init__(
            temperature=temperature,
            momentum=momentum,
            update=update,
            outliers=outliers,
            reinit=reinit,
        )
        self.accept = accept
        self.reciprocal = reciprocal
        self.set_buffer("reach", torch.empty(0))

    def reset(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        cameras: Tensor | None = None,
        source_centroids: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """As `Memory.reset`; then measures the reach of the rows."""
        super().reset(
            features,
            labels,
            cameras=cameras,
            source_centroids=source_centroids,
            generator=generator,
        )
        reach = reach_of(self.rows.to(features.device), self.reciprocal)
        self.set_buffer("reach", reach.to(self.rows.device))

    def update_rows(self, features: Tensor, batch: Batch) -> None:
        """Moves the rows of the images that are accepted."""
        if self.accept == "nearest":
            accepted = self.accepts(features, batch)
            is_target = batch.targets >= self.num_sources
            self.figures.add("accepted", accepted, is_target)
            nowhere = torch.full_like(batch.targets, -1)
            batch = replace(batch, targets=torch.where(accepted, batch.targets, nowhere))
        super().update_rows(features, batch)

    def accepts(self, features: Tensor, batch: Batch) -> Tensor:
        """Whether the memory's nearest class is the image's, or the image a source's, bool [B]."""
        nearest = self.logits(features, batch).argmax(1).to(batch.targets.device)
        is_source = (batch.targets >= 0) & (batch.targets < self.num_sources)
        return is_source | (nearest == batch.targets)


@torch.no_grad()
def reach_of(rows: Tensor, k: int) -> Tensor:
    """Cosine of each of unit rows [R, D] to its k-th nearest other row, [R]; 2 of a single row.

    With fewer than k others, to the farthest.

    >>> reach_of(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), 1)
    tensor([0.8000, 0.8000, 0.6000])
    """
    k = min(k, len(rows) - 1)
    if k < 1:
        return rows.new_full((len(rows),), 2.0)
    found = []
    with torch.autocast(rows.device.type, enabled=False):
        for at in range(0, len(rows), _ROWS):
            cosine = rows[at : at + _ROWS] @ rows.T
            cosine.diagonal(offset=at).fill_(-2)  # the row itself
            found.append(cosine.topk(k, dim=1).values[:, -1])
    return torch.cat(found)
