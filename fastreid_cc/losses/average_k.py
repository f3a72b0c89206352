"""Two-head average-K loss on a memory: ambiguous classes are not plain negatives."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..labels.ambiguity_sets import ambiguity_sets
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import Loss, masked_logsumexp, unit
from .memory_contrast import batch_mean, cross_entropy


@LOSSES.register()
class AverageK(Loss):
    """Cross-entropy that knows which classes an image may be mistaken for: its ambiguity set S.

    The sets are those of `labels.ambiguity_sets`: k classes on average over the batch, k the set
    size. Head 1 is the softmax of `memory.logits`; head 2 the same logits with the bias -log(C / k)
    under a sigmoid: no extra parameters. Before `start_epoch` plain cross-entropy.

    Args:
        set_size: average size of a set over the batch (1.2 to 2 for pseudo-labels).
        alpha: weight of the candidates S without the target.
        use: "two_head": + binary cross-entropy of head 2 with S as positives. "soft_positives":
            + alpha · sum over the candidates of -log sigmoid. "mask_negatives": cross-entropy whose
            denominator leaves the candidates out, against false negatives.
        rescue: train images without a target (-1) too, with the binary cross-entropy of head 2 on
            S. CC.SAMPLER.OUTLIERS_PER_BATCH says how many of them a batch holds.
        start_epoch: first epoch with the sets, 0 = the first with pseudo-labels.

    Cost: that of `MemoryContrast`, one top-(B·k) over B·C probabilities.
    Source: Garcin et al., arXiv:2303.18118; the exact weighting was not readable, and the use on
    pseudo-labels is our proposal.

    >>> from fastreid_cc.memories.cluster import ClusterMemory
    >>> x, targets = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> memory = ClusterMemory(temperature=0.5)
    >>> memory.reset(x, targets)
    >>> AverageK(start_epoch=0)(Batch.of(x, targets), memory)
    tensor(0.1222)
    """

    needs_memory = True
    limits = {
        "set_size": "[1, inf)",
        "alpha": "[0, 1]",
        "use": ("two_head", "soft_positives", "mask_negatives"),
        "start_epoch": "[0, inf)",
    }

    def __init__(
        self,
        *,
        set_size: float = 1.5,
        alpha: float = 0.5,
        use: str = "mask_negatives",
        rescue: bool = False,
        start_epoch: int = 5,
    ) -> None:
        super().__init__()
        self.set_size, self.alpha, self.use = set_size, alpha, use
        self.rescue, self.start_epoch = rescue, start_epoch

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Mean over the images with a target, and the rescued ones."""
        logits = memory.logits(unit(batch.features), batch)
        targets = memory.targets(batch)
        allowed = memory.loss_mask(batch)
        valid = targets >= 0
        if memory.epoch < self.start_epoch:
            return batch_mean(cross_entropy(logits, targets, mask=allowed), valid)
        allowed = torch.ones_like(logits, dtype=torch.bool) if allowed is None else allowed
        sets = ambiguity_sets(logits.masked_fill(~allowed, -torch.inf), self.set_size, targets)
        classes = torch.arange(logits.shape[1], device=logits.device)
        own = classes == targets[:, None]

        mask = allowed & (own | ~sets) if self.use == "mask_negatives" else allowed
        losses = cross_entropy(logits, targets, mask=mask)
        multi = logits + head_bias(logits, allowed & ~sets, self.set_size)
        if self.use == "two_head":
            losses = losses + multi_label_loss(multi, sets, own, allowed, self.alpha) * valid
        elif self.use == "soft_positives":
            losses = losses - self.alpha * (F.logsigmoid(multi) * (sets & ~own)).sum(1) * valid
        if self.rescue:
            losses = losses + multi_label_loss(multi, sets, own, allowed, self.alpha) * ~valid
            valid = torch.ones_like(valid)
        return batch_mean(losses, valid)


def head_bias(logits: Tensor, negative: Tensor, k: float) -> Tensor:
    """Bias of head 2, constants [B, 1]: the mean of exp(logit + bias) over the negatives is k / C.

    Args:
        logits: [B, C].
        negative: bool [B, C]; an image without any gets -log(C / k).
        k: average size of a set.
    """
    count = negative.sum(1)
    mean = masked_logsumexp(logits.detach(), negative) - count.clamp(min=1).log()
    mean = torch.where(count > 0, mean, 0.0)
    return -(mean + math.log(logits.shape[1] / min(k, logits.shape[1])))[:, None]


def multi_label_loss(
    logits: Tensor, sets: Tensor, own: Tensor, allowed: Tensor, alpha: float
) -> Tensor:
    """-log s(u_y) - alpha sum_{S without y} log s(u) - sum outside S of log(1 - s(u)), [B].

    Args:
        logits: u, [B, C].
        sets: S, bool [B, C].
        own: one-hot y, bool [B, C]; all False for images without a target.
        allowed: classes that count, bool [B, C].
        alpha: weight of the candidates.
    """
    weights = torch.where(own, 1.0, torch.where(sets, alpha, 0.0)).to(logits.dtype)
    positive = weights * F.logsigmoid(logits)
    negative = (allowed & ~sets & ~own) * F.logsigmoid(-logits)
    return -(positive + negative).sum(1)
