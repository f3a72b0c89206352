"""Additive margin softmax, against a memory or against class weights."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import Loss, unit
from .memory_contrast import batch_mean, cross_entropy


@LOSSES.register()
class AMSoftmax(Loss):
    """Cross-entropy of (cosine - margin at the target) / temperature against the rows of a memory.

    The temperature takes the place of the memory's own; with the same one and margin 0 this is
    `MemoryContrast`. With true labels and a trained classifier use stock fastreid instead:
    MODEL.HEADS.CLS_LAYER CosSoftmax, SCALE 30, MARGIN 0.35, MODEL.LOSSES.CE.EPSILON 0.0 is this
    formula (value and gradient), but fastreid divides by the number of images whose loss is not 0.

    Args:
        temperature: divides the cosines less the margin; 1 / s of the paper, whose s = 30.
        margin: subtracted from the target's cosine; 0.35 for true labels, 0.1 to 0.2 for
            pseudo-labels.

    Cost: that of `memory.logits`. Source: Wang et al., arXiv:1801.05599 (the same function as
    CosFace, arXiv:1801.09414).

    >>> from fastreid_cc.memories.cluster import ClusterMemory
    >>> x, targets = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> memory = ClusterMemory(temperature=0.5)
    >>> memory.reset(x, targets)
    >>> AMSoftmax()(Batch.of(x, targets), memory)
    tensor(0.2377)
    """

    needs_memory = True
    limits = {"temperature": "(0, inf)", "margin": "[0, 2]"}

    def __init__(self, *, temperature: float = 1 / 30, margin: float = 0.35) -> None:
        super().__init__()
        self.temperature = temperature
        self.margin = margin

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Mean over the images with a target."""
        targets = memory.targets(batch)
        logits = memory.logits(unit(batch.features), batch)
        cosines = with_margin(logits * memory.temperature, targets, self.margin)
        mask = memory.loss_mask(batch)
        return batch_mean(
            cross_entropy(cosines / self.temperature, targets, mask=mask), targets >= 0
        )


def with_margin(cosines: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Cosines [B, C] less the margin at the target; rows with target < 0 get none."""
    classes = torch.arange(cosines.shape[1], device=cosines.device)
    return torch.where(classes == targets[:, None], cosines - margin, cosines)
