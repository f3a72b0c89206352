"""Hybrid memory: source classes, clusters and un-clustered images in one softmax (SpCL)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..labels.numbering import Outliers
from ..registry import MEMORIES
from ..structures import Batch
from . import updates
from .base import Memory


@MEMORIES.register("hybrid")
class HybridMemory(Memory):
    """One row per source class and per target image; a class is the mean of its rows (SpCL).

    Classes are S source classes, C clusters, then one per image in no cluster, unless those are
    dropped. The mean of a cluster is not scaled to unit length, so its logit is the mean of its
    images' logits.

    Args:
        temperature: logits are inner products with class means, divided by it.
        momentum: weight of the old row in an update.
        update: "all": samples in batch order, one by one (the authors' code). "mean": the mean of a
            row's samples once (their text).
        outliers: "singleton": each image in no cluster is a class of its own. "drop": it is not
            trained on and in no softmax; its row stays where it is (see `reinit`) until it is in a
            cluster.
        reinit: True: every `reset` takes the given features. False (SpCL): the first `reset` of a
            size does; later ones keep the rows and take the labels only, and `clustering_features`
            gives the rows to the next labelling.

    Attributes:
        row_classes: i64 [R], class of each row, -1 = none.
        class_sums: f32 [L, D], sum of each class's rows.
        class_sizes: i64 [L].

    Cost of a step: B·L·D multiply-adds for L classes; 2·(S+N)·D floats at most (rows and class
    sums; the sums move with the rows, so no step touches all N rows).
    Source: Ge et al., Self-paced Contrastive Learning, arXiv:2006.02713.
    Differs from the authors' code: all gradients are those of the memory as it was at forward (in
    their joint training the source half sees rows the target half has moved already); no 1e-6
    unless the loss adds it; class numbers may have no gaps. The class sums follow the rows by
    differences and are rebuilt at every reset: rounding of one epoch, about 1e-6.

    >>> memory = HybridMemory(temperature=0.5)
    >>> labels = torch.tensor([0, 0, -1])
    >>> memory.reset(torch.eye(3), labels)
    >>> memory.label_space(labels)
    tensor([0, 0, 1])
    >>> batch = Batch.of(torch.eye(3)[:1], torch.tensor([0]), indices=torch.tensor([0]))
    >>> memory.logits(batch.features, batch)
    tensor([[1., 0.]])
    """

    row_classes: Tensor
    class_sums: Tensor
    class_sizes: Tensor
    limits = {"update": ("all", "mean"), "outliers": ("singleton", "drop")}

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        momentum: float = 0.2,
        update: str = "all",
        outliers: Outliers = "singleton",
        reinit: bool = False,
    ) -> None:
        super().__init__(temperature=temperature, momentum=momentum)
        self.outliers = outliers
        self.rule = update
        self.persists = not reinit
        self.set_buffer("row_classes", torch.empty(0, dtype=torch.int64))
        self.set_buffer("class_sums", torch.empty(0, 0))
        self.set_buffer("class_sizes", torch.empty(0, dtype=torch.int64))

    def reset_rows(
        self,
        features: Tensor,
        labels: Tensor,
        cameras: Tensor | None,
        sources: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Takes the labels, and the features unless rows of that size are there."""
        shape = (len(sources) + len(features), features.shape[1])
        if not self.persists or self.rows.shape != shape:
            self.set_buffer("rows", torch.cat([sources, features]))
        targets = self.label_space(labels)
        self.set_buffer("row_classes", torch.cat([torch.arange(len(sources)).to(targets), targets]))
        num_classes = int(self.row_classes.max()) + 1 if len(self.row_classes) else 0
        sums, sizes = updates.group_sums(self.rows, self.row_classes, num_classes)
        self.set_buffer("class_sums", sums)
        self.set_buffer("class_sizes", sizes)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        """Inner products with the class means over temperature, [B, L]."""
        with torch.autocast(features.device.type, enabled=False):
            features = features if features.dtype == torch.float64 else features.float()
            products = features @ self.class_sums.to(features.dtype).T
            return products / (self.class_sizes.to(features.dtype) * self.temperature)

    def classes_of_rows(self) -> Tensor:
        """Source class, cluster or outlier of each row, i64 [R]; -1 = dropped."""
        return self.row_classes

    def rows_of_images(self, batch: Batch) -> Tensor:
        """That of the image, or of the source image's class, i64 [B]; -1 where targets are."""
        is_source = batch.targets < self.num_sources  # an ignored image too, its target is below 0
        return torch.where(is_source, batch.targets, batch.indices + self.num_sources)

    def update_rows(self, features: Tensor, batch: Batch) -> None:
        """Moves the rows of the batch's images and the sums of their classes."""
        index = self.rows_of_images(batch)
        slots = index[updates.representatives(index)].clamp(min=0)  # sorted; repeated on CUDA
        before = self.rows[slots]
        updates.RULES[self.rule](self.rows, index, features, self.current_momentum)
        is_first = torch.cat([slots[:1] >= 0, slots[1:] != slots[:-1]])
        self._move_sums(self.row_classes[slots], (self.rows[slots] - before) * is_first[:, None])

    def _move_sums(self, classes: Tensor, changes: Tensor) -> None:
        """class_sums[classes] += changes, in a fixed order on every device."""
        touched = classes[updates.representatives(classes)]  # sorted; repeated on CUDA
        totals = (touched[:, None] == classes).to(changes.dtype) @ changes
        totals = totals[torch.searchsorted(touched, touched)]
        self.class_sums[touched] = self.class_sums[touched] + totals
