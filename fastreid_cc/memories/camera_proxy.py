"""Camera proxies: one row per cluster and camera (CAP)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import MEMORIES
from ..structures import Batch
from . import updates
from .base import Memory, camera_mask, check


@MEMORIES.register("camera_proxy")
class CameraProxyMemory(Memory):
    """One row (proxy) per cluster and camera that sees it (CAP); targets stay the clusters'.

    `logits` has a column per proxy, `targets` gives the image's own proxy, and `loss_mask` keeps
    the proxies of the image's camera: `MemoryContrast` on this memory is CAP's term within cameras,
    `CameraProxyContrast` adds the one between them. Without cameras at reset this is
    `ClusterMemory`. Source classes have one row each and form a camera of their own. An image of a
    camera that was not there at reset has no proxy: no term within cameras, no update; its
    cluster's proxies are its positives all the same.

    Args:
        temperature: logits are cosines divided by it.
        momentum: weight of the old row in an update.
        update: which images move a proxy, as in `ClusterMemory`.

    Attributes:
        row_targets: i64 [R], target of each proxy: source class, or S + cluster.
        row_cameras: i64 [R], -1 for source classes.
        proxy_of: i64 [S + C, cameras], row of each target in each camera, -1 where there is none.

    Cost of a step: B·R·D multiply-adds for R proxies; R·D floats, R at most clusters times cameras.
    Source: Wang et al., Camera-aware Proxies, AAAI 2021, arXiv:2012.10674; from its description, no
    recording of the authors' code was at hand.

    >>> memory = CameraProxyMemory()
    >>> labels, cameras = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    >>> memory.reset(torch.eye(3), labels, cameras=cameras)
    >>> memory.row_targets, memory.row_cameras
    (tensor([0, 0, 1]), tensor([0, 1, 0]))
    >>> memory.targets(Batch.of(torch.eye(3), labels, cameras=cameras))
    tensor([0, 1, 2])
    """

    row_targets: Tensor
    row_cameras: Tensor
    proxy_of: Tensor
    limits = {"update": ("all", "hard", "mean")}

    def __init__(
        self, *, temperature: float = 0.07, momentum: float = 0.2, update: str = "all"
    ) -> None:
        super().__init__(temperature=temperature, momentum=momentum)
        self.rule = update
        self.set_buffer("row_targets", torch.empty(0, dtype=torch.int64))
        self.set_buffer("row_cameras", torch.empty(0, dtype=torch.int64))
        self.set_buffer("proxy_of", torch.empty(0, 0, dtype=torch.int64))

    def reset_rows(
        self,
        features: Tensor,
        labels: Tensor,
        cameras: Tensor | None,
        sources: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Sets each proxy to the unit mean of its images; proxies are sorted by cluster, camera.

        Raises:
            ValueError: if a camera is below 0, which names none.
        """
        updates.group_sums(features[:, :0], labels, self.num_clusters)  # refuses empty clusters
        cameras = torch.zeros_like(labels) if cameras is None else cameras
        check(
            not len(cameras) or int(cameras.min()) >= 0,
            "CC.MEMORY.NAME=camera_proxy needs the camera of every image, 0 or above",
        )
        num_cameras = int(cameras.max()) + 1 if len(cameras) else 1
        pair = torch.where(labels >= 0, labels * num_cameras + cameras, -1)
        pairs, proxies = torch.unique(pair, return_inverse=True)
        skipped = int(len(pairs) > 0 and pairs[0] < 0)
        pairs, proxies = pairs[skipped:], proxies - skipped
        rows = F.normalize(updates.group_means(features, proxies, len(pairs)))
        self.set_buffer("rows", torch.cat([sources, rows]))

        num_sources = len(sources)
        own = torch.arange(num_sources, device=labels.device)
        clusters, cams = pairs // num_cameras, pairs % num_cameras
        self.set_buffer("row_targets", torch.cat([own, clusters + num_sources]))
        self.set_buffer("row_cameras", torch.cat([torch.full_like(own, -1), cams]))
        table = labels.new_full((num_sources + self.num_clusters, num_cameras), -1)
        table[:num_sources] = own[:, None]
        table[clusters + num_sources, cams] = torch.arange(len(pairs)).to(own) + num_sources
        self.set_buffer("proxy_of", table)

    def targets(self, batch: Batch) -> Tensor:
        """The image's own proxy, i64 [B], -1 = ignored, or none in its camera."""
        cameras = batch.cameras.clamp(0, self.proxy_of.shape[1] - 1)
        is_source = batch.targets < self.num_sources  # their rows are of no camera
        has_row = (batch.targets >= 0) & ((cameras == batch.cameras) | is_source)
        return torch.where(has_row, self.proxy_of[batch.targets.clamp(min=0), cameras], -1)

    def loss_mask(self, batch: Batch) -> Tensor | None:
        """Proxies of the image's camera, bool [B, R]."""
        return camera_mask(self.row_cameras, batch, self.targets(batch), self.num_sources)

    def positives(self, batch: Batch) -> Tensor:
        """All proxies of the image's cluster, in every camera, bool [B, R]."""
        return self.row_targets == batch.targets[:, None]

    def classes_of_rows(self) -> Tensor:
        """Source class, or cluster, of each proxy, i64 [R]."""
        return self.row_targets

    def update_rows(self, features: Tensor, batch: Batch) -> None:
        """Moves the proxies of the batch's images."""
        targets = self.targets(batch)
        updates.RULES[self.rule](self.rows, targets, features, self.current_momentum)
