"""Drops clusters that one camera fills: they often group views, not identities."""

from __future__ import annotations

import numpy as np

from ...labels.numbering import number_by_first_image
from ...registry import REFINERS
from .base import LabelsAt, Refiner


@REFINERS.register("single_camera")
class SingleCamera(Refiner):
    """Clusters in which one camera holds more than `max_share` of the images become outliers.

    With a single camera in the data set nothing is dropped.

    Args:
        max_share: share of a cluster's images that one camera may hold; 0.99 drops clusters seen
            by one camera only (up to 99 images of a hundred may share one).

    >>> SingleCamera().refine(np.array([0, 0, 1, 1]), {}, cameras=np.array([0, 0, 0, 1]))
    array([-1, -1,  0,  0])
    """

    limits = {"max_share": "(0, 1)"}

    def __init__(self, *, max_share: float = 0.99) -> None:
        self.max_share = max_share

    def refine(
        self, labels: np.ndarray, at_offset: LabelsAt, cameras: np.ndarray | None = None
    ) -> np.ndarray:
        """See the base; `cameras` are needed, `at_offset` is not used.

        Raises:
            ValueError: without cameras.
        """
        if cameras is None:
            raise ValueError(
                "CC.REFINE.NAMES holds single_camera, which needs the cameras of the images."
            )
        names, camera = np.unique(cameras, return_inverse=True)
        clustered = labels >= 0
        if len(names) < 2 or not clustered.any():
            return number_by_first_image(labels)
        sizes = np.bincount(labels[clustered])
        pairs, counts = np.unique(
            labels[clustered] * len(names) + camera[clustered], return_counts=True
        )
        most = np.zeros(len(sizes), np.int64)
        np.maximum.at(most, pairs // len(names), counts)
        kept = labels.copy()
        kept[clustered] = np.where(
            (most > self.max_share * sizes)[labels[clustered]], -1, labels[clustered]
        )
        return number_by_first_image(kept)
