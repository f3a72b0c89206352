"""Labels softened by the predictions of neighbours in the batch (NCPLR)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..parallel.collectives import gather_rows, gather_rows_with_grad
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import LOW, Loss, mean_over, unit, whole_batch


@LOSSES.register()
class NeighborConsistency(Loss):
    """Cross-entropy against refined labels, and agreement of neighbours; beside MemoryContrast.

    p_j is the network's softmax over the memory of image j, t_j the teacher's. The neighbours of an
    image are itself and the `neighbors` images of the batch most similar to it, weighted by
    w_j = softmax(cosine / `temperature`). Its refined label is y = `alpha` one-hot +
    (1 - alpha) sum_j w_j (p_j + t_j) / 2, a constant. The loss is the mean of -y log p, plus
    `consistency_scale` times r KL(mean_j p_j | t), the plain mean over the neighbours against the
    teacher's view of the image itself, r = exp(-5 (1 - x)^2), x = (epoch + 1) / `ramp_epochs`, at
    most 1.

    Args:
        alpha: share of the pseudo-label.
        neighbors: most similar other images of the batch of all processes, of any label.
        temperature: of the weights.
        consistency_scale: factor of the agreement.
        ramp_epochs: epochs until r is 1.

    Cost: B·L softmax for L classes, three times, and B²·(D + L) for B images of all processes.
    Source: Cheng et al., Neighbour Consistency Guided Pseudo-Label Refinement, arXiv:2211.16847:
    abstract, and formulas of the authors' code; checked against loops (grade B). Differs: their
    neighbours lie within a Jaccard distance of 0.2 (Market) or 0.3 (MSMT17) among all images, and
    the weights of their code grow with the distance, where the abstract says similarity; p is a
    softmax over a classifier that starts at the cluster means, here over the memory's rows. A
    memory's mask of classes is not used.

    >>> from dataclasses import replace
    >>> from fastreid_cc.memories.cluster import ClusterMemory
    >>> x, targets = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> memory = ClusterMemory(temperature=0.5)
    >>> memory.reset(x, targets)
    >>> batch = replace(Batch.of(x, targets), teacher_logits=memory.logits(x, Batch.of(x, targets)))
    >>> NeighborConsistency(alpha=1.0, consistency_scale=0.0)(batch, memory)  # MemoryContrast
    tensor(0.2569)
    >>> NeighborConsistency(neighbors=1)(batch, memory)
    tensor(0.4859)
    """

    needs_memory = True
    needs_teacher = True
    limits = {
        "alpha": "[0, 1]",
        "neighbors": "[0, inf)",
        "temperature": "(0, inf)",
        "consistency_scale": "[0, inf)",
        "ramp_epochs": "[1, inf)",
    }

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        neighbors: int = 15,
        temperature: float = 0.05,
        consistency_scale: float = 1.0,
        ramp_epochs: int = 50,
    ) -> None:
        super().__init__()
        self.alpha, self.neighbors, self.temperature = alpha, neighbors, temperature
        self.consistency_scale, self.ramp_epochs = consistency_scale, ramp_epochs

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Of the whole batch of all processes, whose images are each other's neighbours."""
        assert batch.teacher_logits is not None
        f = unit(gather_rows_with_grad(batch.features))
        targets, indices, cameras = map(gather_rows, (batch.targets, batch.indices, batch.cameras))
        whole = Batch.of(f, targets, indices=indices, cameras=cameras)
        labels = memory.targets(whole)
        valid = labels >= 0
        own = memory.logits(f, whole).log_softmax(1)  # [B, L]
        taught = gather_rows(batch.teacher_logits).detach().to(own.dtype).log_softmax(1)
        weights, near = neighbor_weights(f.detach(), valid, self.neighbors, self.temperature)
        both = (own.detach().exp() + taught.exp()) / 2
        refined = (1 - self.alpha) * (weights @ both)
        share = torch.full_like(refined[:, :1], self.alpha)
        refined = refined.scatter_add(1, labels.clamp(min=0)[:, None], share)
        loss = mean_over(-(refined * own).sum(1), valid)
        if self.consistency_scale:
            mean = near @ own.exp() / near.sum(1, keepdim=True).clamp(min=1)
            apart = (mean * (mean.clamp(min=1e-30).log() - taught)).sum(1)
            scale = self.consistency_scale * self.ramp_at(memory.epoch)
            loss = loss + scale * mean_over(apart, valid)
        return whole_batch(loss)

    def ramp_at(self, epoch: int) -> float:
        """r in an epoch, 0 = the first with pseudo-labels."""
        x = min(1.0, (epoch + 1) / self.ramp_epochs)
        return math.exp(-5 * (1 - x) ** 2)


def neighbor_weights(
    f: Tensor, valid: Tensor, neighbors: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """w[i, j] of image j among the neighbours of i, and 1 where it is one, both [B, B].

    Rows of weights sum to 1; all is 0 for images that are not valid.

    Args:
        f: unit rows [B, D], no gradient.
        valid: bool [B], images that are neighbours and have some.
        neighbors: those beside the image itself.
        temperature: see `NeighborConsistency`.
    """
    cosine = (f @ f.T).masked_fill(~valid, LOW)
    cosine = cosine.fill_diagonal_(2.0)  # itself first
    kept = cosine.topk(min(neighbors + 1, len(f)), dim=1)
    values = torch.where(kept.values > 1.5, 1.0, kept.values)
    is_near = (valid[:, None] & (values > LOW)).to(f.dtype)
    weights = (values / temperature).softmax(1) * is_near
    zeros = torch.zeros_like(cosine)
    return zeros.scatter(1, kept.indices, weights), zeros.scatter(1, kept.indices, is_near)
