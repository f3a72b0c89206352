"""Instance memory: one row per image (exemplar memory of ECN; label-free warm-up)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import MEMORIES
from ..structures import Batch
from . import updates
from .base import Memory, camera_mask


@MEMORIES.register("instance")
class InstanceMemory(Memory):
    """One row per image, which is a class of its own: target = S + dataset row. Labels are ignored.

    Args:
        temperature: logits are inner products divided by it.
        momentum: weight of the old row in the first epoch with pseudo-labels.
        momentum_growth: added to the momentum per epoch after it; the sum is clipped to 1 (not so
            in ECN's own code).
        init: "zeros": rows start at zero and survive later resets of the same size (ECN).
            "features": rows are the given features at every reset.
        update: "all": images in batch order, one by one. "mean": the unit mean of an image's views
            in the batch, once.
        negatives: "all": all rows are in the softmax. "same_camera": only rows of the anchor's
            camera and its own row. Without cameras at reset, all.
        source_rows: also keep a row for every image of the labelled sources, outside the softmax,
            by the same rules; for GraphPositives. In the epochs of source labels they are filled by
            the batches. Needs CC.SOURCES.IN_MEMORY False.

    Attributes:
        row_cameras: i64 [R], -1 for source classes; empty without cameras.
        source_rows: f32 [M, D], with `source_rows`.
        source_classes: i64 [M], class of each source image.

    Cost of a step: B·(S+N)·D multiply-adds; (S+N)·D floats (106 MB for 12,936 images at D = 2048).
    Source: Zhong et al., Invariance Matters, CVPR 2019 (momentum 0, growth 0.01, zeros, all).
    Differs from the authors' code: clipped momentum; update after the step; features are scaled to
    unit length before the update (theirs pass a dropout and are not).

    >>> memory = InstanceMemory(init="features", temperature=0.5)
    >>> labels = torch.tensor([0, 0, -1])
    >>> memory.reset(torch.eye(3), labels)
    >>> memory.label_space(labels)
    tensor([0, 1, 2])
    >>> memory.logits(torch.eye(3)[:1], Batch.of(torch.eye(3)[:1], torch.tensor([0])))
    tensor([[2., 0., 0.]])
    """

    outliers = "instance"
    row_cameras: Tensor
    source_rows: Tensor
    source_classes: Tensor
    limits = {
        "momentum_growth": "[0, inf)",
        "init": ("zeros", "features"),
        "update": ("all", "mean"),
        "negatives": ("all", "same_camera"),
    }

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        momentum: float = 0.0,
        momentum_growth: float = 0.01,
        init: str = "zeros",
        update: str = "all",
        negatives: str = "all",
        source_rows: bool = False,
    ) -> None:
        super().__init__(temperature=temperature, momentum=momentum)
        self.momentum_growth = momentum_growth
        self.persists = init == "zeros"
        self.rule = update
        self.negatives = negatives
        self.keeps_source_rows = source_rows
        self.set_buffer("row_cameras", torch.empty(0, dtype=torch.int64))
        self.set_buffer("source_rows", torch.empty(0, 0))
        self.set_buffer("source_classes", torch.empty(0, dtype=torch.int64))

    @property
    def current_momentum(self) -> float:
        """min(1, momentum + momentum_growth * epoch)."""
        return min(1.0, self.momentum + self.momentum_growth * self.epoch)

    def set_source_images(self, classes: Tensor, features: Tensor | None = None) -> None:
        """Keeps the classes and, if given, the features as rows, with `source_rows`."""
        if self.keeps_source_rows:
            self.set_buffer("source_classes", classes.clone().to(self.rows.device))
            if features is not None:
                self.set_buffer("source_rows", F.normalize(features.to(self.rows.device)))

    def reset_rows(
        self,
        features: Tensor,
        labels: Tensor,
        cameras: Tensor | None,
        sources: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Sets the rows to [sources; features], or to [sources; zeros] the first time."""
        shape = (len(sources) + len(features), features.shape[1])
        if not self.persists:
            self.set_buffer("rows", torch.cat([sources, features]))
        elif self.rows.shape != shape:
            self.set_buffer("rows", torch.cat([sources, torch.zeros_like(features)]))
        row_cameras = labels.new_empty(0)
        if cameras is not None:
            row_cameras = torch.cat([cameras.new_full((len(sources),), -1), cameras])
        self.set_buffer("row_cameras", row_cameras)
        wanted = (len(self.source_classes), features.shape[1])
        if self.source_rows.shape != wanted:
            self.set_buffer("source_rows", features.new_zeros(wanted))

    def loss_mask(self, batch: Batch) -> Tensor | None:
        """Rows of the anchor's camera and its own row, bool [B, S+N]; None for all rows."""
        if self.negatives == "all" or not len(self.row_cameras):
            return None
        return camera_mask(self.row_cameras, batch, batch.targets, self.num_sources)

    def rows_of_images(self, batch: Batch) -> Tensor:
        """Every image's row is its class."""
        return batch.targets

    def update_rows(self, features: Tensor, batch: Batch) -> None:
        """Moves the rows of the batch's images."""
        if not self.keeps_source_rows or batch.domains is None:
            self._move(self.rows, batch.targets, features)
            return
        nowhere = batch.indices.new_full((), -1)
        self._move(self.rows, torch.where(batch.is_source, nowhere, batch.targets), features)
        self._move(self.source_rows, torch.where(batch.is_source, batch.indices, nowhere), features)

    def _move(self, rows: Tensor, index: Tensor, features: Tensor) -> None:
        if not len(rows):  # of the target, while source labels are learnt alone
            return
        if self.rule == "all":
            updates.update_all(rows, index, features, self.current_momentum)
        else:
            updates.update_mean(rows, index, features, self.current_momentum, unit_means=True)
