"""What every distance does: neighbours in, a sparse matrix of distances out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ...registry import DISTANCES, Part
from ...structures import KnnGraph, Progress, Search


class Distance(Part):
    """Base of the distances. A subclass writes `__call__`, and `searches` if it needs neighbours.

    All its values lie in [0, 1], or those above 1 are never asked for.

    >>> class AllAlike(Distance):
    ...     def __call__(self, features, graphs, *, max_distance, cameras=None, progress=None):
    ...         return sp.csr_array(np.zeros((len(features), len(features)), np.float32))
    >>> AllAlike().searches(100, num_cameras=1)  # it needs no neighbours
    ()
    """

    def searches(self, images: int, num_cameras: int) -> tuple[Search, ...]:
        """The neighbour searches it needs; `__call__` gets one graph for each, in this order.

        Args:
            images: N.
            num_cameras: different cameras of the images, 1 if they are unknown.
        """
        return ()

    def __call__(
        self,
        features: Tensor,
        graphs: Sequence[KnnGraph],
        *,
        max_distance: float,
        cameras: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> sp.csr_array:
        """The distances of all pairs at most `max_distance` apart.

        Args:
            features: f32 [N, D], unit rows, on any device. Not changed.
            graphs: the answers to `searches`, each [N, k].
            max_distance: in (0, 1].
            cameras: integer [N], None if unknown.
            progress: called with (stage, pieces done, pieces in all).
        Returns:
            f32 [N, N], symmetric to the bit, with the diagonal and all zeros stored, columns
            ascending; a pair that is not stored is farther apart.
        """
        raise NotImplementedError

    def bytes_needed(self, images: int) -> int:
        """Estimate of the memory in bytes beyond features and graphs."""
        return 0


DISTANCES.base = Distance


def on_host(features: Tensor) -> np.ndarray:
    """Features f32 [N, D] of any device as an array; no copy if they are on the CPU already.

    >>> import torch
    >>> on_host(torch.ones(1, 2))
    array([[1., 1.]], dtype=float32)
    """
    return features.detach().cpu().contiguous().numpy()
