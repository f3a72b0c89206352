"""One hard but reliable positive against hard negatives that are no likely splits (SCL)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import LOW, Loss, masked_logsumexp, softplus, unit
from .memory_contrast import batch_mean


@runtime_checkable
class ReachingMemory(MemoryLike, Protocol):
    """A memory that knows how far the nearest rows of each row lie (`SelectiveMemory`).

    Attributes:
        reach: [R], cosine of each row to its k-th nearest other row.
    """

    reach: Tensor


@LOSSES.register()
class SelectiveContrast(Loss):
    """Contrast of an image with chosen rows of a memory that holds one per image.

    -log(e^p / (e^p + sum_n e^n)) over cosines divided by `temperature`. The positive is the least
    similar row of the image's cluster whose cosine is at least mean - deviation of its cosines with
    all rows of the cluster: what lies below is taken for a wrong merge. The negatives are the
    `negatives` most similar rows of other clusters, without those that are reciprocal neighbours of
    the image: they are taken for splits of its cluster. Rows in no cluster are neither. An image
    whose negatives are all left out costs nothing.

    Needs CC.MEMORY.NAME selective, whose RECIPROCAL says how near a reciprocal neighbour is.

    Args:
        temperature: cosines are divided by it.
        negatives: most similar rows of other clusters that are looked at.

    Cost: B·R·D for R rows, and a few [B, R] masks. Source: Jia et al., Mind Your Clever Neighbours,
    arXiv:2112.01839, re-derived from the abstract, which names selective contrast and no formula;
    no parity is claimed. The own row counts among those of its cluster; a row is a reciprocal
    neighbour if the cosine is at least the `reach` of both rows.

    >>> from fastreid_cc.memories.selective import SelectiveMemory
    >>> memory = SelectiveMemory(reciprocal=1)
    >>> x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    >>> memory.reset(x, torch.tensor([0, 0, 1, 1]))
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1, 1]), indices=torch.arange(4))
    >>> SelectiveContrast(temperature=0.5)(batch, memory)
    tensor(0.3591)
    """

    needs_memory = True
    limits = {"temperature": "(0, inf)", "negatives": "[1, inf)"}

    def __init__(self, *, temperature: float = 0.05, negatives: int = 50) -> None:
        super().__init__()
        self.temperature = temperature
        self.negatives = negatives

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Mean over the images with a target."""
        if not isinstance(memory, ReachingMemory):
            raise ValueError("SelectiveContrast needs CC.MEMORY.NAME selective.")
        f, targets = unit(batch.features), batch.targets
        cosine = f @ memory.rows.to(f.dtype).T  # [B, R]
        classes, own = memory.classes_of_rows(), memory.rows_of_images(batch)
        in_cluster = (classes == targets[:, None]) & (classes >= 0)
        positive = hardest_reliable(cosine.detach(), in_cluster)
        hardest, at = self._hardest_others(cosine, (classes >= 0) & ~in_cluster)
        reach = memory.reach.to(f.dtype)
        least = torch.maximum(reach[own.clamp(min=0)][:, None], reach[at])
        is_negative = (hardest > LOW) & (hardest < least)
        chosen = cosine.gather(1, positive[:, None])[:, 0]
        against = masked_logsumexp(hardest / self.temperature, is_negative)
        losses = softplus(against - chosen / self.temperature)  # 0 without negatives
        return batch_mean(torch.where(targets >= 0, losses, 0.0), targets >= 0)

    def _hardest_others(self, cosine: Tensor, is_other: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and rows of the most similar rows of other clusters, [B, n]; LOW = no row."""
        k = min(self.negatives, cosine.shape[1])
        return cosine.masked_fill(~is_other, LOW).topk(k, dim=1)


def hardest_reliable(cosine: Tensor, in_cluster: Tensor) -> Tensor:
    """Per image the least similar row of its cluster from mean - deviation on, i64 [B].

    Args:
        cosine: [B, R]; in_cluster: bool [B, R]. Where no row is in the cluster the answer is any.
    """
    count = in_cluster.sum(1, keepdim=True).clamp(min=1)
    mean = (cosine * in_cluster).sum(1, keepdim=True) / count
    variance = ((cosine - mean).square() * in_cluster).sum(1, keepdim=True) / count
    is_reliable = in_cluster & (cosine >= mean - variance.sqrt() - 1e-6)  # equal ones all pass
    return torch.where(is_reliable, cosine, 2.0).argmin(1)
