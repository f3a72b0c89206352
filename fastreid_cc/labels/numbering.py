"""The one place that numbers training targets: source classes, then clusters, then outliers."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

Outliers = Literal["drop", "singleton", "instance"]


def build_label_space(
    labels: Tensor, *, num_sources: int = 0, outliers: Outliers = "drop"
) -> Tensor:
    """Turns cluster labels into training targets.

    Source class s keeps the number s, cluster c becomes S + c. What happens to an image that is in
    no cluster depends on `outliers`.

    Args:
        labels: i64 [N], cluster of each image in 0..C-1 without gaps, -1 = outlier. Not changed.
        num_sources: S, number of source classes, 0 without source.
        outliers: "drop": target -1 (not trained). "singleton": each outlier is a class of its own,
            S + C, S + C + 1, ... in dataset order. "instance": every image, clustered or not, is a
            class of its own, S + its row.
    Returns:
        i64 [N], targets, -1 where the image is not trained.
    Raises:
        ValueError: if labels are not one-dimensional or lie below -1.

    Cost: O(N); reads one number back from the device.
    """
    if labels.ndim != 1:
        raise ValueError(f"labels must be [N], got {list(labels.shape)}.")
    if outliers == "instance":
        return torch.arange(len(labels), device=labels.device) + num_sources
    if len(labels) and int(labels.min()) < -1:
        raise ValueError(f"labels hold {int(labels.min())}; clusters start at 0, outliers are -1.")
    is_outlier = labels < 0
    targets = torch.where(is_outlier, labels.new_full((), -1), labels + num_sources)
    if outliers == "drop":
        return targets
    first = num_sources + count_clusters(labels)
    return torch.where(is_outlier, first + is_outlier.long().cumsum(0) - 1, targets)


def count_clusters(labels: Tensor) -> int:
    """C: the largest label + 1, 0 if every image is an outlier."""
    return max(int(labels.max()) + 1, 0) if len(labels) else 0


def number_by_first_image(labels: np.ndarray) -> np.ndarray:
    """Renames clusters 0, 1, ... in the order of their first image; negative labels become -1.

    Args:
        labels: integer [N], any values. Not changed.
    Returns:
        i64 [N], a new array. Cost: O(N log N).
    """
    labels = np.asarray(labels, dtype=np.int64)
    kept = labels >= 0
    numbered = np.full(len(labels), -1, np.int64)
    _, first, cluster = np.unique(labels[kept], return_index=True, return_inverse=True)
    numbered[kept] = first.argsort().argsort()[cluster]
    return numbered


def outliers_as_clusters(labels: np.ndarray) -> np.ndarray:
    """Gives each outlier a cluster of its own, numbered after the others in dataset order.

    Args:
        labels: i64 [N], -1 = outlier. Not changed.
    Returns:
        i64 [N], all >= 0, a new array.
    """
    alone = labels < 0
    full = labels.copy()
    full[alone] = labels.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    return full
