"""Two memories behind one face, for two networks that are trained side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import Batch
from .base import COUNTS, Memory, State, check


class PairMemory(Memory):
    """Gives the left half of every feature to one memory, the right half to the other.

    Features of a pair are [f1, f2] side by side, so the cosine of two rows is the mean of the two
    networks' cosines, if both halves have unit length. Labels, targets and all that is counted are
    the same in both memories. The rows are theirs; `rows` of the pair stays empty.

    Args:
        first: the left half's memory.
        second: the right half's, of the same kind and with the same settings.

    >>> from fastreid_cc.memories.cluster import ClusterMemory
    >>> memory = PairMemory(ClusterMemory(), ClusterMemory())
    >>> memory.reset(torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 1]]), torch.tensor([0, 1]))
    >>> memory.first.rows
    tensor([[1., 0.],
            [0., 1.]])
    >>> memory.second.rows
    tensor([[0., 1.],
            [0., 1.]])
    """

    def __init__(self, first: Memory, second: Memory) -> None:
        super().__init__(temperature=first.temperature, momentum=first.momentum)
        self.first, self.second = first, second
        self.outliers, self.persists = first.outliers, first.persists
        self.keeps_source_rows = first.keeps_source_rows
        self.label_smoothing = first.label_smoothing

    @property
    def both(self) -> tuple[Memory, Memory]:
        """(first, second)."""
        return self.first, self.second

    def set_source_images(self, classes: Tensor, features: Tensor | None = None) -> None:
        """Tells both the classes of the sources' images, i64 [M]; features f32 [M, 2 D]."""
        parts = (None, None) if features is None else halves(features)
        for memory, part in zip(self.both, parts, strict=True):
            memory.set_source_images(classes, part)

    def set_epoch(self, epoch: int) -> None:
        """Tells both the epoch."""
        for memory in self.both:
            memory.set_epoch(epoch)
        self._count()

    def _count(self) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self.first, name))

    def reset(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        cameras: Tensor | None = None,
        source_centroids: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Fills both, see `Memory.reset`; features f32 [N, 2 D], source_centroids f32 [S, 2 D].

        Raises:
            ValueError: if the features do not split into halves, and as `Memory.reset`.
        """
        centroids = (None, None) if source_centroids is None else halves(source_centroids)
        for memory, part, centers in zip(self.both, halves(features), centroids, strict=True):
            memory.reset(
                F.normalize(part),
                labels,
                cameras=cameras,
                source_centroids=centers,
                generator=generator,
            )
        self._count()

    def targets(self, batch: Batch) -> Tensor:
        """Of each."""
        return self.first.targets(batch)

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        """Mean of both memories' logits of their halves of features [B, 2 D]."""
        parts = zip(self.both, halves(features), strict=True)
        first, second = (memory.logits(F.normalize(part), batch) for memory, part in parts)
        return (first + second) / 2

    def loss_mask(self, batch: Batch) -> Tensor | None:
        """Of each."""
        return self.first.loss_mask(batch)

    def update(self, batch: Batch) -> None:
        """Moves the rows of both by their halves of the features, [B, 2 D]."""
        for memory, part in zip(self.both, halves(batch.features), strict=True):
            memory.update(replace(batch, features=part))

    def clustering_features(self) -> Tensor | None:
        """Both memories' features side by side, or None."""
        return self._side_by_side(lambda memory: memory.clustering_features())

    def source_centroids(self) -> Tensor | None:
        """Both memories' side by side, or None."""
        return self._side_by_side(lambda memory: memory.source_centroids())

    def _side_by_side(self, read: Callable[[Memory], Tensor | None]) -> Tensor | None:
        parts = [part for part in map(read, self.both) if part is not None]
        return torch.cat(parts, dim=1) if parts else None

    def get_state(self) -> State:
        """States of both."""
        return {"first": self.first.get_state(), "second": self.second.get_state()}

    def set_state(self, state: State) -> None:
        """Restores `get_state`.

        Raises:
            ValueError: if the state is not one of a pair.
        """
        check({"first", "second"} <= state.keys(), "memory state is not one of two networks")
        self.first.set_state(state["first"])
        self.second.set_state(state["second"])
        self._count()


def halves(features: Tensor) -> tuple[Tensor, Tensor]:
    """[B, D] and [B, D] of [B, 2 D].

    Raises:
        ValueError: if the number of columns is odd.
    """
    size = features.shape[1]
    check(size % 2 == 0, f"features of two networks need an even size, found {size}")
    return features[:, : size // 2], features[:, size // 2 :]
