"""What every memory does: reset once per labelling, logits in a loss, update once per step.

A memory holds rows on the unit sphere. Losses only read it; nothing is written inside backward.
The caller gathers (features, targets, indices, cameras) over ranks in rank order and calls `update`
after `optimizer.step()`, so all ranks hold equal bytes, a step that AMP skips writes nothing and
gradient accumulation writes once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..labels.numbering import Outliers, build_label_space, count_clusters
from ..registry import MEMORIES, Part
from ..structures import Batch, Figures
from .updates import group_means

State = dict[str, Any]
COUNTS = ("epoch", "num_sources", "num_clusters", "num_images")


class Memory(Part, nn.Module):
    """Base of all memories: a subclass writes `reset_rows` and `update_rows`.

    `rows` live on the module's device (`memory.to(device)`) and keep the dtype of the features that
    filled them. A row has unit length, or is zero where nothing was written yet, unless `unit_rows`
    is False. What more a memory has to keep it sets by `set_buffer`; then `get_state` and
    `set_state` carry it along.

    Args:
        temperature: logits are cosines divided by it.
        momentum: weight of the old row in an update; 1 = rows never move.

    Attributes:
        outliers: what becomes of images in no cluster, see `labels.numbering.build_label_space`.
        persists: whether the rows, one per image, are kept at the next `reset`; then they are the
            features that it clusters, and checkpoints keep them.
        keeps_source_rows: whether it has rows of single source images, which are no classes.
        unit_rows: whether rows have unit length; rows that learn by gradient need not.
        label_smoothing: share of the wanted probability that MemoryContrast spreads over all
            classes.
        rows: f32 [R, D], empty before the first `reset`.
        epoch: the epoch at hand, from 0 = the first with pseudo-labels.
        num_sources: S, source classes with a row.
        num_clusters: C, outliers excluded.
        num_images: N.
        figures: means over the epoch, logged at its end as "cc/memory_<name>".

    A whole memory, cluster means that never move:

    >>> class FrozenMemory(Memory):
    ...     def __init__(self, *, temperature: float = 0.05) -> None:
    ...         super().__init__(temperature=temperature)
    ...
    ...     def reset_rows(self, features, labels, cameras, sources, generator):
    ...         self.set_buffer("rows", torch.cat([sources, self.cluster_means(features, labels)]))
    ...
    ...     def update_rows(self, features, batch):
    ...         pass
    >>> memory = FrozenMemory()
    >>> memory.reset(torch.eye(3), torch.tensor([0, 0, -1]))
    >>> memory.rows
    tensor([[0.7071, 0.7071, 0.0000]])
    """

    outliers: Outliers = "drop"
    persists: bool = False
    keeps_source_rows: bool = False
    unit_rows: bool = True
    label_smoothing: float = 0.0
    rows: Tensor
    limits = {"temperature": "(0, inf)", "momentum": "[0, 1]"}

    def __init__(self, *, temperature: float, momentum: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.momentum = momentum
        self.figures = Figures()
        self.epoch = self.num_sources = self.num_clusters = self.num_images = 0
        self.set_buffer("rows", torch.empty(0, 0))

    def set_buffer(self, name: str, value: Tensor) -> None:
        """Sets a non-persistent buffer; its size may differ from the one it replaces."""
        self.register_buffer(name, value, persistent=False)

    @property
    def outlives_labelling(self) -> bool:
        """Whether the next `reset` is one of this object: it holds rows that go on."""
        return self.persists or self.keeps_source_rows

    @property
    def needs_labels(self) -> bool:
        """False if clusters play no part, since every image is a class; then none are made."""
        return self.outliers != "instance"

    @property
    def current_momentum(self) -> float:
        """Weight of the old row in this epoch."""
        return self.momentum

    def set_epoch(self, epoch: int) -> None:
        """Tells the memory the epoch, for schedules; 0 = the first with pseudo-labels."""
        self.epoch = epoch

    def set_source_images(  # noqa: B027  most memories need not know
        self, classes: Tensor, features: Tensor | None = None
    ) -> None:
        """Receives i64 [M], the class of each source image; called before every `reset`.

        And its features f32 [M, D], where the memory keeps source rows and does not persist.
        """

    @property
    def takes_source_images(self) -> bool:
        """Whether `update` gets the batch's source images too: if they have rows."""
        return self.num_sources > 0 or self.keeps_source_rows

    def reset(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        cameras: Tensor | None = None,
        source_centroids: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Fills the rows for a new labelling.

        Args:
            features: f32 [N, D], unit rows, in dataset order.
            labels: i64 [N], clusters 0..C-1 without gaps, -1 = outlier.
            cameras: i64 [N], camera of each image, None if unknown.
            source_centroids: f32 [S, D], one row per source class (scaled to unit length here).
            generator: source of random choices; None = a generator seeded with 0.
        Raises:
            ValueError: if the shapes disagree or a cluster in 0..max(labels) has no image.
        """
        device = self.rows.device
        features, labels = features.detach().to(device), labels.to(device)
        check(
            features.ndim == 2 and labels.shape == features.shape[:1],
            f"features {list(features.shape)} must be [N, D] and labels {list(labels.shape)} [N]",
        )
        check(
            cameras is None or cameras.shape == labels.shape,
            "cameras must be [N], one per image, or None",
        )
        sources = features[:0] if source_centroids is None else source_centroids.detach().to(device)
        check(
            sources.shape[1:] == features.shape[1:],
            f"source_centroids {list(sources.shape)} must be [S, {features.shape[1]}]",
        )
        self.num_sources = len(sources)
        self.num_clusters = count_clusters(labels)
        self.num_images = len(labels)
        with torch.autocast(device.type, enabled=False):
            self.reset_rows(
                features,
                labels,
                None if cameras is None else cameras.to(device),
                F.normalize(sources.to(features.dtype)),
                generator or torch.Generator().manual_seed(0),
            )

    def reset_rows(
        self,
        features: Tensor,
        labels: Tensor,
        cameras: Tensor | None,
        sources: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Sets the rows, of source classes first, then of the target: targets number them so.

        Arguments were checked and lie on the memory's device; `num_sources`, `num_clusters` and
        `num_images` are set.

        Args:
            features: [N, D], unit rows, in dataset order.
            labels: i64 [N], clusters 0..C-1, -1 = outlier.
            cameras: i64 [N], None if unknown.
            sources: [S, D], unit rows, one per source class, of the features' dtype; S may be 0.
            generator: source of random choices.
        """
        raise NotImplementedError

    def cluster_means(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean feature of each cluster, scaled to unit length, [C, D]; for `reset_rows`.

        Raises:
            ValueError: if a cluster has no image.

        Cost: O(N·D) time; summed in dataset order, so equal on every process.
        """
        return F.normalize(group_means(features, labels, self.num_clusters))

    def label_space(self, labels: Tensor) -> Tensor:
        """Targets of all images, i64 [N], -1 = not trained. Call after `reset`."""
        return build_label_space(labels, num_sources=self.num_sources, outliers=self.outliers)

    def targets(self, batch: Batch) -> Tensor:
        """Column of `logits` that is right for each image, i64 [B], -1 = ignored."""
        return batch.targets

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        """Cosines with the classes over temperature, [B, classes]; float32 (or float64) always.

        Args:
            features: [B, D], unit rows; the gradient flows into them, the rows are constants.
            batch: the batch they come from.
        """
        with torch.autocast(features.device.type, enabled=False):
            features = features if features.dtype == torch.float64 else features.float()
            return features @ self.rows.to(features.dtype).T / self.temperature

    def loss_mask(self, batch: Batch) -> Tensor | None:
        """bool [B, classes], the classes that stay in the softmax; None = all."""
        return None

    def classes_of_rows(self) -> Tensor:
        """Target that each row belongs to, i64 [R], -1 = none; by default row i to target i."""
        return torch.arange(len(self.rows), device=self.rows.device)

    def rows_of_images(self, batch: Batch) -> Tensor:
        """The row that is the image's alone, i64 [B]; -1 where it shares one or has none."""
        return torch.full_like(batch.targets, -1)

    @torch.no_grad()
    def update(self, batch: Batch) -> None:
        """Moves the rows of the batch's images. Mutates the memory, not the batch.

        Products are of the rows' precision, whatever autocast does outside.

        Args:
            batch: gathered over ranks; features are scaled to unit length here, targets < 0 are
                skipped.
        """
        features = batch.features.detach().to(self.rows.device, self.rows.dtype)
        with torch.autocast(features.device.type, enabled=False):
            self.update_rows(F.normalize(features), batch)

    def update_rows(self, features: Tensor, batch: Batch) -> None:
        """Moves the rows of a batch, in place; a frozen memory passes.

        Args:
            features: [B, D], unit rows of the memory's dtype, on its device.
            batch: their targets (< 0: leave out), indices, cameras and domains.
        """
        raise NotImplementedError

    def clustering_features(self) -> Tensor | None:
        """f32 [N, D] for the next labelling to cluster; None = extract them from the images."""
        return self.rows[self.num_sources :] if self.persists and len(self.rows) else None

    def source_centroids(self) -> Tensor | None:
        """f32 [S, D], rows of the source classes to go on with at the next `reset`, or None."""
        return self.rows[: self.num_sources] if self.persists and self.num_sources else None

    def get_state(self) -> State:
        """Everything needed to go on, as tensors and plain numbers (torch `weights_only` safe)."""
        state: State = {name: value.clone() for name, value in self.named_buffers(recurse=False)}
        return state | {name: getattr(self, name) for name in COUNTS}

    def set_state(self, state: State) -> None:
        """Restores what `get_state` gave, on this module's device.

        Raises:
            ValueError: if entries are missing.
        """
        missing = sorted(self.get_state().keys() - state.keys())
        check(not missing, f"memory state lacks {missing}")
        for name in Memory.get_state(self):
            value = state[name]
            if isinstance(value, Tensor):
                self.set_buffer(name, value.clone().to(getattr(self, name).device))
            else:
                setattr(self, name, value)


MEMORIES.base = Memory


def check(condition: bool, message: str) -> None:
    """Raises ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(f"{message}.")


def camera_mask(row_cameras: Tensor, batch: Batch, own: Tensor, num_sources: int) -> Tensor:
    """Classes of the anchor's camera and its own class, bool [B, R].

    Source rows count as one camera (-1): a source image meets source rows, a target image rows of
    its own camera.

    Args:
        row_cameras: i64 [R], camera of each row, -1 for source rows.
        batch: the batch; targets below `num_sources` are source images.
        own: i64 [B], each image's own row, -1 = none.
        num_sources: S.
    """
    is_source = (batch.targets >= 0) & (batch.targets < num_sources)
    camera = torch.where(is_source, batch.cameras.new_full((), -1), batch.cameras)
    rows = torch.arange(len(row_cameras), device=row_cameras.device)
    return (row_cameras == camera[:, None]) | (rows == own[:, None])
