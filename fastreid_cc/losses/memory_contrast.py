"""Cross-entropy of a batch against a memory: cluster, instance and hybrid contrast."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..parallel.collectives import gather_rows, world_size
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import Loss, unit


@LOSSES.register()
class MemoryContrast(Loss):
    """Cross-entropy of a batch against a memory: mean of -log softmax(memory.logits)[target].

    Which contrast it is depends on the memory: of clusters, of images, hybrid, or within cameras;
    with the memory `classifier` it is the cross-entropy of a linear classifier, label smoothing
    included.

    Args:
        probability_floor: SpCL's constant f, 1e-6 there: q = exp z / (sum exp z + f), loss =
            -log(q + f). 0 = plain cross-entropy. It caps the loss at -log f and stops the gradient
            of images whose own class is improbable.
        camera_entropy: weight images by the camera entropy of their cluster in the batch:
            w = P·exp(H) / sum over the P clusters of exp(H), H in bits.

    Cost: that of `memory.logits`, and B² for the weights. Computed in log space, so no finite
    logit overflows (the authors of SpCL exponentiate directly).
    Sources: Dai et al., arXiv:2103.11568; Ge et al., SpCL, arXiv:2006.02713; the weights: 3C,
    arXiv:2408.09464.

    >>> from fastreid_cc.memories.cluster import ClusterMemory
    >>> x, targets = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> memory = ClusterMemory(temperature=0.5)
    >>> memory.reset(x, targets)
    >>> MemoryContrast()(Batch.of(x, targets), memory)
    tensor(0.2569)
    >>> MemoryContrast()(Batch.of(x, torch.tensor([-1, -1, -1])), memory)
    tensor(0.)
    """

    needs_memory = True
    limits = {"probability_floor": "[0, 1)"}

    def __init__(self, *, probability_floor: float = 0.0, camera_entropy: bool = False) -> None:
        super().__init__()
        self.probability_floor = probability_floor
        self.camera_entropy = camera_entropy

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Mean over the images with a target."""
        logits = memory.logits(unit(batch.features), batch)
        mask = memory.loss_mask(batch)
        targets = memory.targets(batch)
        smoothing, floor = memory.label_smoothing, self.probability_floor
        losses = cross_entropy(logits, targets, mask=mask, floor=floor, smoothing=smoothing)
        if self.camera_entropy:
            losses = losses * local_weights(batch).to(losses.dtype)
        return batch_mean(losses, targets >= 0)


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    mask: Tensor | None = None,
    floor: float = 0.0,
    smoothing: float = 0.0,
) -> Tensor:
    """-log softmax at the target per image, [B]; 0 where the target is -1.

    Args:
        logits: [B, L].
        targets: i64 [B], < 0 = ignored.
        mask: bool [B, L], classes in the denominator; None = all.
        floor: SpCL's constant, see `MemoryContrast`.
        smoothing: share of the wanted probability spread evenly over all L classes; with neither
            mask nor floor.
    """
    valid = targets >= 0
    if mask is None and not floor:
        wanted = targets.clamp(min=-1)
        return F.cross_entropy(
            logits, wanted, ignore_index=-1, reduction="none", label_smoothing=smoothing
        )
    assert not smoothing
    if mask is not None:
        logits = logits.masked_fill(~(mask | ~valid[:, None]), -torch.inf)
    own = logits.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    total = torch.logsumexp(logits, dim=1)
    if floor:
        least = logits.new_full((), math.log(floor))
        losses = -torch.logaddexp(own - torch.logaddexp(total, least), least)
    else:
        losses = total - own
    return torch.where(valid, losses, 0.0)


def batch_mean(losses: Tensor, valid: Tensor) -> Tensor:
    """Sum of the losses over the number of valid images of all ranks, times the number of ranks."""
    count = gather_rows(valid.sum()[None]).sum().clamp(min=1)
    return losses.sum() * world_size() / count


def local_weights(batch: Batch) -> Tensor:
    """Camera-entropy weights of this rank's images, with clusters counted over all ranks, [B]."""
    targets, cameras = gather_rows(batch.targets), gather_rows(batch.cameras)
    weights = camera_entropy_weights(targets, cameras)
    own = (targets == batch.targets[:, None]).int().argmax(1)  # weight depends on the target only
    return weights[own]


def camera_entropy_weights(targets: Tensor, cameras: Tensor) -> Tensor:
    """w = P·exp(H_c) / sum exp(H) for each image of cluster c, f64 [B]; 0 where target < 0.

    H_c is the entropy in bits of the cameras of cluster c in the batch, P the number of clusters.
    """
    valid = targets >= 0
    same = (targets == targets[:, None]) & valid & valid[:, None]
    size = same.sum(1).clamp(min=1).double()  # [B] numbers: float64 costs nothing
    share = (same & (cameras == cameras[:, None])).sum(1) / size
    bits = torch.where(valid, -torch.log2(share), 0.0)
    entropy = (same * bits).sum(1) / size  # mean of -log2 p over the members
    gain = entropy.exp() * valid
    return gain * (valid / size).sum() / (gain / size).sum().clamp(min=1e-12)
