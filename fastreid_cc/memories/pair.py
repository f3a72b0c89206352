"""Two memories behind one face, for two networks that are trained side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..structures import Batch
from .base import Memory, check


class PairMemory(nn.Module):
    """Gives the left half of every feature to one memory, the right half to the other.

    Features of a pair are [f1, f2] side by side, so the cosine of two rows is the mean of the two
    networks' cosines, if both halves have unit length. Both memories share labels and targets.

    Args:
        first, second: memories of one kind, with the same settings.
    """

    def __init__(self, first: Memory, second: Memory) -> None:
        super().__init__()
        self.first, self.second = first, second

    @property
    def both(self) -> tuple[Memory, Memory]:
        """(first, second)."""
        return self.first, self.second

    def __getattr__(self, name: str) -> Any:
        """What the two have in common: num_sources, num_targets, epoch, survives and so on."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["first"], name)

    @property
    def rows(self) -> Tensor:
        """Rows of both side by side, f32 [R, 2 D]."""
        return torch.cat([memory.rows for memory in self.both], dim=1)

    def set_source_classes(self, classes: Tensor) -> None:
        """Tells both the classes of the sources' images, i64 [M]."""
        for memory in self.both:
            memory.set_source_classes(classes)

    def set_epoch(self, epoch: int) -> None:
        """Tells both the epoch."""
        for memory in self.both:
            memory.set_epoch(epoch)

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
        centroids = [None, None] if source_centroids is None else halves(source_centroids)
        for memory, part, centers in zip(self.both, halves(features), centroids, strict=True):
            memory.reset(
                torch.nn.functional.normalize(part),
                labels,
                cameras=cameras,
                source_centroids=centers,
                generator=generator,
            )

    def update(self, batch: Batch) -> None:
        """Moves the rows of both by their halves of the features, [B, 2 D]."""
        for memory, part in zip(self.both, halves(batch.features), strict=True):
            memory.update(replace(batch, features=part))

    def clustering_features(self) -> Tensor | None:
        """Both memories' features side by side, or None."""
        found = [memory.clustering_features() for memory in self.both]
        parts = [part for part in found if part is not None]
        return torch.cat(parts, dim=1) if len(parts) == 2 else None

    def get_state(self) -> dict[str, Any]:
        """States of both."""
        return {"first": self.first.get_state(), "second": self.second.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores `get_state`.

        Raises:
            ValueError: if the state is not one of a pair.
        """
        check({"first", "second"} <= state.keys(), "memory state is not one of two networks")
        self.first.set_state(state["first"])
        self.second.set_state(state["second"])


def halves(features: Tensor) -> tuple[Tensor, Tensor]:
    """[B, D] and [B, D] of [B, 2 D].

    Raises:
        ValueError: if the number of columns is odd.
    """
    size = features.shape[1]
    check(size % 2 == 0, f"features of two networks need an even size, found {size}")
    return features[:, : size // 2], features[:, size // 2 :]
