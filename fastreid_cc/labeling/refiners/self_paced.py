"""SpCL's cluster reliability: independence and compactness, from contingency counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...labels.numbering import number_by_first_image, outliers_as_clusters
from ...registry import REFINERS
from .base import LabelsAt, Refiner


def distance_of_memberships(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """1 - |I and O| / |I or O| for each image, I and O its clusters in two labellings.

    Args:
        labels: i64 [N] >= 0.
        others: i64 [N] >= 0.
    Returns:
        f64 [N] in [0, 1). O(N log N) time and O(N) memory; no N x N matrix.

    >>> distance_of_memberships(np.array([0, 0, 1]), np.array([0, 1, 1]))
    array([0.5       , 0.66666667, 0.5       ])
    """
    pair = labels * (others.max(initial=0) + 1) + others
    _, where, counts = np.unique(pair, return_inverse=True, return_counts=True)
    common = counts[where]
    union = np.bincount(labels)[labels] + np.bincount(others)[others] - common
    return np.asarray(1 - common / union)


@REFINERS.register("self_paced")
class SelfPaced(Refiner):
    """Keeps the clusters that hold at a looser eps and the images that hold at a tighter one.

    For each image, with its cluster I at eps, I_loose at eps + gap and I_tight at eps - gap:
    R_indep = 1 - IoU(I, I_loose), R_comp = 1 - IoU(I, I_tight); a cluster's value is the least of
    its members'. An image stays if R_indep(cluster) is at most a threshold and R_comp(image) at
    most R_comp(cluster); otherwise it becomes an outlier. The threshold is the `quantile` of
    R_indep over the clusters of two images or more at the first labelling, kept from then on.

    Source: Ge et al., SpCL, NeurIPS 2020, arXiv:2006.02713. Outliers are -1 here, single clusters
    of their own there; a cluster left with one image is an outlier too.

    Args:
        eps_gap: how far the looser and the tighter eps are from the clusterer's.
        quantile: quantile of R_indep over the clusters that becomes the threshold.

    Cost: two more clusterings of the same graph, O(N log N).

    >>> refiner, labels = SelfPaced(quantile=0.0), np.array([0, 0, 1, 1, 2, 2])
    >>> refiner.refine(labels, {0.02: np.array([0, 0, 1, 1, 1, 1]), -0.02: labels})
    array([ 0,  0, -1, -1, -1, -1])
    """

    limits = {"eps_gap": "(0, 0.5)", "quantile": "[0, 1]"}

    def __init__(self, *, eps_gap: float = 0.02, quantile: float = 0.9) -> None:
        self.eps_offsets = eps_gap, -eps_gap
        self.quantile = quantile
        self.threshold: float | None = None

    def refine(
        self, labels: np.ndarray, at_offset: LabelsAt, cameras: np.ndarray | None = None
    ) -> np.ndarray:
        """See the base. Sets `threshold` at the first call that finds a cluster."""
        own = outliers_as_clusters(labels)
        loose, tight = (
            distance_of_memberships(own, outliers_as_clusters(at_offset[offset]))
            for offset in self.eps_offsets
        )
        sizes = np.bincount(own)
        independence = np.ones(len(sizes))
        np.minimum.at(independence, own, loose)
        compactness = np.ones(len(sizes))
        np.minimum.at(compactness, own, tight)
        if self.threshold is None and (sizes > 1).any():
            ordered = np.sort(independence[sizes > 1])
            self.threshold = float(
                ordered[min(len(ordered) - 1, round(self.quantile * len(ordered)))]
            )
        if self.threshold is None:
            return np.full(len(labels), -1, np.int64)
        stays = (independence[own] <= self.threshold) & (tight <= compactness[own]) & (labels >= 0)
        kept = np.where(stays, labels, -1)
        if stays.any():
            kept[(kept >= 0) & (np.bincount(kept[stays])[kept] < 2)] = -1
        return number_by_first_image(kept)

    def state_dict(self) -> dict[str, Any]:
        """The threshold of the first labelling."""
        return {"threshold": self.threshold}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        self.threshold = state["threshold"]
