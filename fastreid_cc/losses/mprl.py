"""Graded labels for images that have none: every class a little, the likelier the more."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import LOW, Loss, unit
from .memory_contrast import batch_mean


@LOSSES.register()
class MpRL(Loss):
    """Mean of -sum_k q_k log p_k over images without a label.

    p is the network's softmax; q, a constant, grades the K classes by it, anew in every step.

    Args:
        over: "clusters": un-clustered images, over the memory's classes. "classes", the paper's
            form: all images of the target (generated ones there), over the classes of labelled
            sources (CC.SOURCES, joint, with cross-entropy).
        scheme: "rank": q_k is proportional to the rank of class k, 1 for the least likely, K for
            the likeliest. "uniform": all alike (LSRO). "argmax": the likeliest alone. "argsort":
            what the authors' published code computes, which takes the sorting permutation for the
            rank and so grades almost at random; for comparisons.
        top: classes that are graded, the likeliest so many; 0 = all.
        start_epoch: epoch it works from, 0 = the first with pseudo-labels.

    Of equally likely classes the lower one has the lower rank. "argmax" is "rank" with `top` 1. The
    rank is a mild tilt of the uniform label: KL(q | uniform) is 0.151 for 10 classes, 0.187 for 80,
    and below ln 2 - 1/2 = 0.193 for any number. Over clusters, images with a target cost 0 here;
    other losses take them. CC.SAMPLER.OUTLIERS_PER_BATCH puts un-clustered images into batches,
    where they count in batch norm too, whatever the SCALE. Cost: that of the logits, and a sort of
    [B, classes].

    Source: Huang et al., arXiv:1801.06742 (definition and code read, results second-hand). Differs:
    over clusters, classes and images are both the target's; a margin of the classifier is not
    applied. In the authors' code a weight w of generated images is SCALE 1.855 w: it averages over
    generated and real images together.

    >>> from fastreid_cc.memories.cluster import ClusterMemory
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    >>> memory = ClusterMemory(temperature=0.5)
    >>> memory.reset(x[:2], torch.tensor([0, 1]))
    >>> batch = Batch.of(x, torch.tensor([0, 1, -1]))
    >>> MpRL()(batch, memory), MpRL(scheme="uniform")(batch, memory)
    (tensor(0.6463), tensor(0.7130))
    """

    log_name = "mprl"
    needs_memory = True
    limits = {
        "over": ("clusters", "classes"),
        "scheme": ("rank", "uniform", "argmax", "argsort"),
        "top": "[0, inf)",
        "start_epoch": "[0, inf)",
    }

    def __init__(
        self,
        *,
        over: str = "clusters",
        scheme: str = "rank",
        top: int = 0,
        start_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.over, self.scheme, self.top, self.start_epoch = over, scheme, top, start_epoch
        self.needs_class_logits = over == "classes"

    def applies_to(self, part: Literal["target", "source"], memory: MemoryLike | None) -> bool:
        """On the target's images: those of sources have labels."""
        return part == "target"

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Mean over the images without a label; 0 if there is none.

        Raises:
            ValueError: if there are fewer than two classes to grade.
        """
        mask = None
        if self.over == "classes":
            assert batch.class_logits is not None
            free, logits = torch.ones_like(batch.targets, dtype=torch.bool), batch.class_logits
        else:
            free, logits = batch.targets < 0, memory.logits(unit(batch.features), batch)
            mask = memory.loss_mask(batch)
        if logits.shape[1] < 2:
            raise ValueError(
                f"{self.key} over {self.over} has {logits.shape[1]} class to grade; wanted at"
                " least 2. Make more clusters (a smaller CC.CLUSTER radius), or name sources with"
                " more identities."
            )
        if memory.epoch < self.start_epoch:
            free = torch.zeros_like(free)
        wanted = graded_labels(logits, self.scheme, self.top, mask)
        if mask is not None:
            logits = logits.masked_fill(~(mask | ~mask.any(1, keepdim=True)), LOW)
        losses = -(wanted * logits.log_softmax(1)).sum(1)
        return batch_mean(torch.where(free, losses, 0.0), free)


@torch.no_grad()
def graded_labels(
    logits: Tensor, scheme: str = "rank", top: int = 0, allowed: Tensor | None = None
) -> Tensor:
    """q, [B, K], rows that sum to 1 (to 0 where no class is allowed); see `MpRL`.

    Args:
        logits: [B, K].
        scheme, top: as for `MpRL`; a `top` above the number of classes means all.
        allowed: bool [B, K], the classes that are graded; None = all.

    >>> graded_labels(torch.tensor([[0.3, 0.9, 0.1, 0.5]]))
    tensor([[0.2000, 0.4000, 0.1000, 0.3000]])
    """
    allowed = torch.ones_like(logits, dtype=torch.bool) if allowed is None else allowed
    order = logits.masked_fill(~allowed, -torch.inf).argsort(dim=1, stable=True)
    left_out = (~allowed).sum(1, keepdim=True)  # they have the lowest ranks
    rank = order.argsort(dim=1) + 1 - left_out
    count = logits.shape[1] - left_out
    top = 1 if scheme == "argmax" else top
    graded = allowed & (rank > count - top) if top else allowed
    if scheme == "argsort":
        weights = (order + 1).to(logits.dtype)
    else:
        weights = torch.ones_like(logits) if scheme == "uniform" else rank.to(logits.dtype)
    weights = weights * graded
    return weights / weights.sum(1, keepdim=True).clamp(min=1)
