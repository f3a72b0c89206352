"""What every refiner does: labels in, labels out, with some images made outliers or joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ...registry import REFINERS, Part
from ...structures import Batch, MemoryLike

LabelsAt = Mapping[float, np.ndarray]  # offset of the radius -> i64 [N]


class Refiner(Part):
    """Base of the refiners. A subclass writes `refine`.

    Attributes:
        eps_offsets: it also needs the labels at these radii, relative to that of the labels.
        needs_training: it has an effect only between the epochs of a training.

    >>> class DropsAll(Refiner):
    ...     def refine(self, labels, at_offset, cameras=None):
    ...         return np.full(len(labels), -1)
    >>> DropsAll().refine(np.array([0, 0, 1]), {})
    array([-1, -1, -1])
    """

    eps_offsets: tuple[float, ...] = ()
    needs_training: ClassVar[bool] = False

    def refine(
        self, labels: np.ndarray, at_offset: LabelsAt, cameras: np.ndarray | None = None
    ) -> np.ndarray:
        """Better labels.

        Args:
            labels: i64 [N], -1 = outlier, clusters 0..C-1 by first image, from the clusterer or the
                refiner before. Not changed.
            at_offset: for each of `eps_offsets`, the clusterer's labels i64 [N] at that distance
                from their radius, in the same form, unrefined. Not changed.
            cameras: integer [N], None if unknown.
        Returns:
            i64 [N] in the same form; `number_by_first_image` closes the gaps.
        """
        raise NotImplementedError

    def refine_with(
        self,
        features: Tensor,
        labels: np.ndarray,
        at_offset: LabelsAt,
        cameras: np.ndarray | None = None,
    ) -> np.ndarray:
        """What a labelling calls: `refine`, unless a subclass looks at the features too.

        Args:
            features: f32 [N, D], unit rows that were clustered, on any device. Not kept.
        """
        return self.refine(labels, at_offset, cameras)

    def start(self, labels: np.ndarray) -> None:
        """Called before an epoch with the labels i64 [N] that are trained on from here."""

    def observe(self, batch: Batch, memory: MemoryLike) -> None:
        """Called after each step, with the batch of all processes, before the memory moves."""

    def state_dict(self) -> dict[str, Any]:
        """What the next labelling depends on, as numbers and tensors; empty if nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""


REFINERS.base = Refiner
