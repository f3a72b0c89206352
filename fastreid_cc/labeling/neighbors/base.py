"""What every neighbour search does: features in, the k nearest images of each image out."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Tensor

from ...registry import NEIGHBORS, Part
from ...structures import KnnGraph, Progress

Array = np.ndarray
Rows = range | np.ndarray  # of the data set: a slice with step 1, or i64 [M]


class NeighborSearch(Part):
    """Base of the neighbour searches. A subclass writes `search`.

    Attributes:
        splits: whether searching the slices of `parts` gives, put together, the bytes of one search
            of all rows. Then several processes share a search; otherwise the first does it alone.

    >>> class InOrder(NeighborSearch):
    ...     def search(self, features, k, rows, progress, **prepared):
    ...         found = (np.asarray(rows)[:, None] + np.arange(k)) % len(features)
    ...         return KnnGraph(found, np.ones(found.shape, np.float32))
    >>> InOrder()(torch.eye(3), 2).indices.tolist()
    [[0, 1], [1, 2], [2, 0]]
    """

    splits: ClassVar[bool] = False

    def __call__(
        self,
        features: Tensor,
        k: int,
        rows: Rows | None = None,
        progress: Progress | None = None,
        **prepared: Array,
    ) -> KnnGraph:
        """The k nearest images of each of `rows`, the image itself first.

        Args:
            features: f32 [N, D], unit rows, on any device. Not changed.
            k: neighbours per image, itself included, in [1, N].
            rows: the images to search for, by default all; a slice (step 1) or one of `parts`.
            progress: called with ("neighbors", pieces done, pieces in all).
            prepared: what `prepare` gave, so that it need not be worked out again.
        Returns:
            indices and similarity [M, k], one row for each of `rows`.
        Raises:
            ValueError: if k is not in [1, N].
            ImportError: if the search needs a package that is not installed.
        """
        images = len(features)
        if not 1 <= k <= images:
            raise ValueError(
                f"k={k} neighbours asked of {images} images; k must lie in [1, {images}]"
            )
        rows = range(images) if rows is None else rows
        return self.search(features.detach(), k, rows, progress, **prepared)

    def search(
        self, features: Tensor, k: int, rows: Rows, progress: Progress | None, **prepared: Array
    ) -> KnnGraph:
        """The search itself; the arguments are those of `__call__`, checked and complete."""
        raise NotImplementedError

    def prepare(self, features: Tensor) -> dict[str, Array]:
        """What all slices of a search have in common, worked out once and given to each of them.

        Args:
            features: f32 [N, D], unit rows.
        Returns:
            arrays by name, passed to `__call__` and `parts` as keyword arguments.
        """
        return {}

    def parts(self, images: int, count: int, **prepared: Array) -> list[Rows]:
        """The rows that each of `count` processes searches: together all N, each exactly once."""
        return [range(images * p // count, images * (p + 1) // count) for p in range(count)]

    def bytes_needed(self, images: int, size: int, k: int) -> int:
        """Estimate of the memory in bytes beyond the features f32 [images, size]."""
        return 0


NEIGHBORS.base = NeighborSearch
