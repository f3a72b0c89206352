"""Contrast with the camera proxies that belong together by today's features (O2CAP)."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..parallel.collectives import world_size
from ..registry import LOSSES
from ..structures import Batch, MemoryLike
from .base import LOW, Loss, masked_logsumexp, unit
from .camera_proxy_contrast import per_camera_share


@runtime_checkable
class CameraRows(MemoryLike, Protocol):
    """A memory whose rows are of cameras (`CameraProxyMemory`).

    Attributes:
        row_cameras: i64 [R], -1 for source classes.
        proxy_of: i64 [classes, cameras].
    """

    row_cameras: Tensor
    proxy_of: Tensor


@LOSSES.register()
class OnlineAssociation(Loss):
    """O2CAP's online term: proxies associated by features, not by clusters; needs "camera_proxy".

    On unit features f with own proxy c: the similarity of a proxy r is s_r = `balance` f r +
    (1 - balance) c r. Of the best proxy of each camera, the own one included, the `proxies` best
    are taken for the image's; the loss is the mean of their -log softmax against these and the
    `negatives` most similar other proxies. Those of its cluster that were not taken are negatives
    like all others. Summed over the cameras of the batch, a mean over the images of each. Images
    without a proxy and source images cost nothing; proxies of source classes are negatives only.

    O2CAP is this term beside the offline one: CameraProxyContrast with INTRA_SCALE 0, INTER_SCALE 1
    and START_EPOCH 0.

    Args:
        balance: share of the image's own feature in the similarity.
        proxies: those taken, at most one of a camera.
        negatives: number of hard negative proxies.

    Cost: two products B·R·D and two sorts of B x R for R proxies. Source: Wang et al., O2CAP, TIP
    2022, arXiv:2201.05820: abstract, and formulas of the authors' code; checked against loops, no
    recording was at hand (grade B).

    >>> from fastreid_cc.memories.camera_proxy import CameraProxyMemory
    >>> x, targets = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    >>> memory, cameras = CameraProxyMemory(temperature=0.5), torch.tensor([0, 1, 0])
    >>> memory.reset(x, targets, cameras=cameras)
    >>> OnlineAssociation(proxies=2)(Batch.of(x, targets, cameras=cameras), memory)
    tensor(1.7769)
    """

    needs_memory = True
    limits = {"balance": "[0, 1]", "proxies": "[1, inf)", "negatives": "[1, inf)"}

    def __init__(self, *, balance: float = 0.15, proxies: int = 3, negatives: int = 50) -> None:
        super().__init__()
        self.balance, self.proxies, self.negatives = balance, proxies, negatives

    def compute(self, batch: Batch, memory: MemoryLike) -> Tensor:
        """Sum over cameras of means over their images."""
        if not isinstance(memory, CameraRows):
            raise ValueError("OnlineAssociation needs CC.MEMORY.NAME=camera_proxy.")
        f, own = unit(batch.features), memory.targets(batch)
        counted = (own >= 0) & (batch.targets >= memory.num_sources)
        if not len(memory.rows):
            return f.sum() * 0
        logits, rows = memory.logits(f, batch), memory.rows.to(f.dtype)
        mixed = self.balance * f.detach() + (1 - self.balance) * rows[own.clamp(min=0)]
        similarity = mixed @ rows.T  # [B, R]
        positive = self._associated(similarity, memory)
        k = min(self.negatives, len(rows))
        hardest = similarity.masked_fill(positive, LOW).topk(k, dim=1)
        kept = torch.zeros_like(positive).scatter(1, hardest.indices, hardest.values > LOW)
        total = masked_logsumexp(logits, kept | positive)
        mean = torch.where(positive, logits, 0.0).sum(1) / positive.sum(1).clamp(min=1)
        losses = torch.where(counted & positive.any(1), total - mean, 0.0)
        share = per_camera_share(replace(batch, targets=torch.where(counted, batch.targets, -1)))
        return (losses * share).sum() * world_size()

    def _associated(self, similarity: Tensor, memory: CameraRows) -> Tensor:
        """bool [B, R], the proxies taken for positives."""
        best, value = best_of_cameras(similarity, memory.row_cameras, memory.proxy_of.shape[1])
        k = min(self.proxies, best.shape[1])
        values, at = value.topk(k, dim=1)
        chosen = torch.zeros_like(similarity)  # rows of absent cameras repeat one: add, not set
        chosen = chosen.scatter_add(1, best.gather(1, at), (values > LOW).to(chosen.dtype))
        return chosen > 0


def best_of_cameras(similarity: Tensor, cameras: Tensor, num_cameras: int) -> tuple[Tensor, Tensor]:
    """The most similar row of each camera, and its similarity, both [B, cameras].

    Args:
        similarity: [B, R]. cameras: i64 [R], -1 = of none.
        num_cameras: cameras are 0..num_cameras - 1; one without a row has similarity LOW.
    """
    size, count = similarity.shape
    values, order = similarity.sort(dim=1, descending=True, stable=True)
    place = torch.arange(count, device=order.device).expand(size, -1)
    first = order.new_full((size, num_cameras + 1), count)
    first = first.scatter_reduce(1, cameras[order] + 1, place, "amin")[:, 1:]
    at = first.clamp(max=count - 1)
    return order.gather(1, at), values.gather(1, at).masked_fill(first == count, LOW)
