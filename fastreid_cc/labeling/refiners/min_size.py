"""Drops clusters that are too small."""

from __future__ import annotations

import numpy as np

from ...labels.numbering import number_by_first_image
from ...registry import REFINERS
from .base import LabelsAt, Refiner


@REFINERS.register("min_size")
class MinimumSize(Refiner):
    """Clusters of fewer than `min_size` images become outliers.

    Args:
        min_size: images a cluster must have; 1 changes nothing.

    >>> MinimumSize(min_size=2).refine(np.array([0, 1, 1, -1]), {})
    array([-1,  0,  0, -1])
    """

    limits = {"min_size": "[1, inf)"}

    def __init__(self, *, min_size: int = 2) -> None:
        self.min_size = min_size

    def refine(
        self, labels: np.ndarray, at_offset: LabelsAt, cameras: np.ndarray | None = None
    ) -> np.ndarray:
        """See the base; `at_offset` and `cameras` are not used."""
        kept = labels.copy()
        clustered = labels >= 0
        sizes = np.bincount(labels[clustered])
        kept[clustered] = np.where(sizes[labels[clustered]] < self.min_size, -1, labels[clustered])
        return number_by_first_image(kept)
