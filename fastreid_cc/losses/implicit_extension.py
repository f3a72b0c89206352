"""Contrast of images and of support samples between them and their nearest other cluster (ISE)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parallel.collectives import gather_rows, gather_rows_with_grad
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import LOW, Loss, masked_logsumexp, mean_over, softplus, unit, whole_batch
from .memory_contrast import cross_entropy


@LOSSES.register()
class ImplicitExtension(Loss):
    """Memory contrast of images and of support samples made of them; in place of MemoryContrast.

    A support sample of an image f with row c is s = unit(f + a (n - c)), n one of the `neighbors`
    rows of other classes most similar to f: towards the next cluster, with the image's label. a
    grows with the epochs e, a = `degree` log(1 + (e - 1) t), t = (epoch + 1/2) / `ramp_epochs`, at
    most 1. The loss is the mean cross-entropy of all f and s against the memory, plus `lp_scale`
    times the label-preserving loss: the mean over images of -log(p / (p + sum_k n_k)) over
    exp(f s / `lp_temperature`), p the least similar support sample of the image's class, n_k the
    most similar one of each other class in the batch.

    Where a class has several rows, c is the one most similar to f. Without another class s is f.

    Args:
        neighbors: support samples of an image, one for each of its nearest other rows.
        degree: a at the end; the authors' code has 1 times 0.5 twice.
        ramp_epochs: epochs until a stops growing: those of the training.
        lp_scale: factor of the label-preserving loss (published code: 0.1 Market, 0.01 MSMT17).
        lp_temperature: temperature of the label-preserving loss.

    Cost: (1 + neighbors)·B·R·D, and neighbors·B²·D, for B images of all processes and R rows.
    Source: Zhang et al., Implicit Sample Extension, CVPR 2022, arXiv:2204.06892; formulas read in
    the authors' code, checked against loops; no recording was at hand (grade B). Differs: a grows
    by epoch, theirs by step; support samples move the rows in their code, not here; no 1e-6 inside
    the logarithm.

    >>> from fastreid_cc.memories.cluster import ClusterMemory
    >>> x, targets = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> memory = ClusterMemory(temperature=0.5)
    >>> memory.reset(x, targets)
    >>> ImplicitExtension(degree=0.0, lp_scale=0.0)(Batch.of(x, targets), memory)  # MemoryContrast
    tensor(0.2569)
    >>> ImplicitExtension(degree=0.5, ramp_epochs=1)(Batch.of(x, targets), memory)
    tensor(0.4254)
    """

    needs_memory = True
    limits = {
        "neighbors": "[1, inf)",
        "degree": "[0, inf)",
        "ramp_epochs": "[1, inf)",
        "lp_scale": "[0, inf)",
        "lp_temperature": "(0, inf)",
    }

    def __init__(
        self,
        *,
        neighbors: int = 1,
        degree: float = 0.25,
        ramp_epochs: int = 50,
        lp_scale: float = 0.1,
        lp_temperature: float = 0.6,
    ) -> None:
        super().__init__()
        self.neighbors, self.degree, self.ramp_epochs = neighbors, degree, ramp_epochs
        self.lp_scale, self.lp_temperature = lp_scale, lp_temperature

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Of the whole batch of all processes, whose support samples meet all its images."""
        f = unit(gather_rows_with_grad(batch.features))
        targets, indices, cameras = map(gather_rows, (batch.targets, batch.indices, batch.cameras))
        whole = Batch.of(f, targets, indices=indices, cameras=cameras)
        supports = self._supports(f, targets, memory)  # [B * K, D]
        again = torch.arange(len(f), device=f.device).repeat_interleave(len(supports) // len(f))
        everyone = whole.select(torch.cat([torch.arange(len(f), device=f.device), again]))
        logits = memory.logits(torch.cat([f, supports]), everyone)
        wanted = memory.targets(everyone)
        losses = cross_entropy(logits, wanted, mask=memory.loss_mask(everyone))
        loss = mean_over(losses, wanted >= 0)
        if self.lp_scale:
            loss = loss + self.lp_scale * self._label_preserving(f, supports, targets)
        return whole_batch(loss)

    def degree_at(self, epoch: int) -> float:
        """a in an epoch, 0 = the first with pseudo-labels."""
        t = min(1.0, (epoch + 0.5) / self.ramp_epochs)
        return self.degree * math.log(1 + (math.e - 1) * t)

    def _supports(self, f: Tensor, targets: Tensor, memory: MemoryLike) -> Tensor:
        """Those of each image in turn, [B * K, D]; f itself where there is no row or no other."""
        rows, classes = F.normalize(memory.rows.detach().to(f.dtype)), memory.classes_of_rows()
        is_own = (classes == targets[:, None]) & (targets >= 0)[:, None]
        if not len(rows):
            return f
        cosine = f.detach() @ rows.T
        own = cosine.masked_fill(~is_own, LOW).argmax(1)
        is_other = ~is_own & (classes >= 0)
        k = min(self.neighbors, len(rows))
        nearest, at = cosine.masked_fill(~is_other, LOW).topk(k, dim=1)
        is_there = (nearest > LOW) & is_own.any(1)[:, None]
        towards = torch.where(is_there[..., None], rows[at] - rows[own][:, None], 0.0)
        made = f[:, None] + self.degree_at(memory.epoch) * towards  # [B, K, D]
        return unit(made.flatten(0, 1))

    def _label_preserving(self, f: Tensor, supports: Tensor, targets: Tensor) -> Tensor:
        size, k = len(f), len(supports) // len(f)
        z = f @ supports.T / self.lp_temperature  # [B, B * K]
        same = targets[:, None] == targets
        of_support = targets.repeat_interleave(k)
        positive = z.masked_fill(targets[:, None] != of_support, -LOW).amin(1)
        first = same.int().argmax(1)  # [B], where each image's class is first met
        hardest = z.new_full((size, size), LOW).scatter_reduce(
            1, first.repeat_interleave(k).expand(size, -1), z, "amax"
        )
        is_first = (first == torch.arange(size, device=f.device)) & (targets >= 0)
        against = masked_logsumexp(hardest, is_first & ~same)
        return mean_over(softplus(against - positive), targets >= 0)
