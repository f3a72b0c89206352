"""Intra- and inter-camera contrast on camera proxies (CAP)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..parallel.collectives import gather_rows, world_size
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import Loss, masked_logsumexp, unit
from .memory_contrast import cross_entropy


@runtime_checkable
class ProxyMemory(MemoryLike, Protocol):
    """A memory with several rows for a class (`CameraProxyMemory`)."""

    def positives(self, batch: Batch) -> Tensor:
        """All rows of each image's class, bool [B, R]."""


@LOSSES.register()
class CameraProxyContrast(Loss):
    """Contrast within and between cameras on camera proxies (CAP); needs the memory "camera_proxy".

    Sum over the cameras of the batch of the mean of intra_scale · within + inter_scale · between.
    Within: cross-entropy among the proxies of the image's camera. Between, from `start_epoch` on:
    mean over the proxies of the image's cluster, in every camera, of -log softmax against these and
    the `negatives` most similar proxies of other clusters.

    Args:
        intra_scale: factor of the term within cameras (O2CAP: 0).
        inter_scale: factor of the term between cameras (O2CAP: 1).
        negatives: number of hard negative proxies.
        start_epoch: first epoch with the term between cameras, 0 = the first with
            pseudo-labels.

    Cost: B·R·D and a top-k over R proxies per image. Source: Wang et al., CAP, AAAI 2021,
    arXiv:2012.10674; as the authors' code, the image's own proxy is among the positives. No
    recording of their code was at hand: checked against loops only.

    >>> from fastreid_cc.memories.camera_proxy import CameraProxyMemory
    >>> x, targets = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> memory, cameras = CameraProxyMemory(temperature=0.5), torch.tensor([0, 1, 0])
    >>> memory.reset(x, targets, cameras=cameras)
    >>> CameraProxyContrast(start_epoch=0)(Batch.of(x, targets, cameras=cameras), memory)
    tensor(0.9154)
    """

    needs_memory = True
    limits = {
        "intra_scale": "[0, inf)",
        "inter_scale": "[0, inf)",
        "negatives": "[1, inf)",
        "start_epoch": "[0, inf)",
    }

    def __init__(
        self,
        *,
        intra_scale: float = 1.0,
        inter_scale: float = 0.5,
        negatives: int = 50,
        start_epoch: int = 5,
    ) -> None:
        super().__init__()
        self.intra_scale = intra_scale
        self.inter_scale = inter_scale
        self.negatives = negatives
        self.start_epoch = start_epoch

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Sum over cameras of means over their images."""
        if not isinstance(memory, ProxyMemory):
            raise ValueError("CameraProxyContrast needs CC.MEMORY.NAME=camera_proxy.")
        logits = memory.logits(unit(batch.features), batch)
        targets = memory.targets(batch)
        mask = memory.loss_mask(batch)
        losses = self.intra_scale * cross_entropy(logits, targets, mask=mask)
        if memory.epoch >= self.start_epoch and self.inter_scale:
            positives = memory.positives(batch)
            losses = losses + self.inter_scale * self._inter(logits, positives)
        return (losses * per_camera_share(batch)).sum() * world_size()

    def _inter(self, logits: Tensor, positives: Tensor) -> Tensor:
        others = logits.detach().masked_fill(positives, -torch.inf)
        k = min(self.negatives, logits.shape[1])
        hardest = others.topk(k, dim=1)
        kept = torch.zeros_like(positives).scatter_(1, hardest.indices, hardest.values > -torch.inf)
        total = masked_logsumexp(logits, kept | positives)
        count = positives.sum(1)
        mean = logits.masked_fill(~positives, 0.0).sum(1) / count.clamp(min=1)
        return torch.where(count > 0, total - mean, 0.0)


def per_camera_share(batch: Batch) -> Tensor:
    """1 over the number of images of the image's camera in the whole batch, [B]; 0 if ignored."""
    cameras, valid = gather_rows(batch.cameras), gather_rows(batch.targets) >= 0
    count = ((cameras == batch.cameras[:, None]) & valid).sum(1)
    return (batch.targets >= 0).to(batch.features) / count.clamp(min=1)
