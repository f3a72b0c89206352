"""Drops clusters that are too small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...labels.numbering import number_by_first_image
from ...registry import REFINERS, Part


@REFINERS.register("min_size")
class MinimumSize(Part):
    """Clusters of fewer than `min_size` images become outliers.

    Args:
        min_size: images a cluster must have; 1 changes nothing.
    """

    reach = 0.0
    limits = {"min_size": "[1, inf)"}

    def __init__(self, *, min_size: int = 2) -> None:
        self.min_size = min_size

    def refine(
        self,
        labels: np.ndarray,
        relabel: Callable[[float], np.ndarray],
        cameras: np.ndarray | None = None,
    ) -> np.ndarray:
        """New labels i64 [N]; `relabel` and `cameras` are not used."""
        kept = labels.copy()
        clustered = labels >= 0
        sizes = np.bincount(labels[clustered])
        kept[clustered] = np.where(sizes[labels[clustered]] < self.min_size, -1, labels[clustered])
        return number_by_first_image(kept)

    def state_dict(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
