"""Soft labels from a mean teacher: its softmax over the memory is the target of the network's."""

from __future__ import annotations

from torch import Tensor

from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import LOW, Loss, unit
from .memory_contrast import batch_mean


@LOSSES.register()
class SoftContrast(Loss):
    """Soft labels from a mean teacher: mean of -sum_c p_c log q_c over the memory's classes c.

    q is the network's softmax; p = softmax(teacher's memory logits / temperature) is a constant.
    With one network the teacher is its own; with two each is taught by the other's (CC.TEACHER,
    MODEL.META_ARCHITECTURE MutualContrast). Images without a target are ignored, as everywhere.

    Args:
        temperature: divides the teacher's logits; below 1 sharpens its softmax, above 1 flattens
            it.

    Cost: that of `memory.logits`, twice. Source: Ge et al., Mutual Mean-Teaching, ICLR 2020 (soft
    classification loss, weight 0.5 beside 0.5 of the hard one). Differs: the classes are rows of a
    memory, not of a classifier.

    >>> from dataclasses import replace
    >>> from fastreid_cc.memories.cluster import ClusterMemory
    >>> x, targets = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> memory = ClusterMemory(temperature=0.5)
    >>> memory.reset(x, targets)
    >>> batch = Batch.of(x, targets)
    >>> SoftContrast()(replace(batch, teacher_logits=memory.logits(x, batch)), memory)
    tensor(0.5092)
    """

    needs_memory = True
    needs_teacher = True
    limits = {"temperature": "(0, inf)"}

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Mean over the images with a target."""
        assert batch.teacher_logits is not None
        logits = memory.logits(unit(batch.features), batch)
        wanted = batch.teacher_logits.detach().to(logits.dtype) / self.temperature
        valid = batch.targets >= 0
        mask = memory.loss_mask(batch)
        if mask is not None:
            outside = ~(mask | ~valid[:, None])
            logits, wanted = (z.masked_fill(outside, LOW) for z in (logits, wanted))
        losses = -(wanted.softmax(1) * logits.log_softmax(1)).sum(1)
        return batch_mean(losses * valid, valid)
