"""Features refined by their neighbours before they are clustered; the memory keeps the plain ones.

A refiner is a `structures.FeatureRefiner`: a loss with weights of its own, or `NeighborMean`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from ..parallel.rank_zero import run_on_rank0
from ..structures import FeatureRefiner, KnnGraph, Search
from .neighbor_lists import find_neighbors
from .neighbors.base import NeighborSearch
from .unit_rows import unit_rows

_ROWS = 512  # images refined together: N·k·D floats at once would be 5.3 GB for MSMT17


@torch.no_grad()
def refined_features(
    features: Tensor,
    refiners: Iterable[FeatureRefiner],
    search: NeighborSearch,
    *,
    alone: bool = False,
) -> Tensor:
    """The features to cluster: refined by one refiner after the other; as given without any.

    Every process of a group calls with the same features; each searches its part of the neighbours
    and refines all images, so all get the same bytes on like devices.

    Args:
        features: f32 [N, D], any length; left alone.
        refiners: each sees what the one before it gave, scaled to unit length.
        search: finds the neighbours.
        alone: this process works alone.
    Returns:
        [N, D], of any length.
    Raises:
        ValueError: if a refiner gives another shape.

    Cost: for each refiner a neighbour search and its own.

    >>> from fastreid_cc.labeling.neighbors.exact import ExactKNN
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> refined_features(x, [NeighborMean(1)], ExactKNN())
    tensor([[0.9000, 0.3000],
            [0.9000, 0.3000],
            [0.4000, 0.8000]])
    """
    for refiner in refiners:
        if not refiner.neighbors_to_refine:
            continue
        rows = unit_rows(features)
        k = min(refiner.neighbors_to_refine, len(rows))
        found = find_neighbors(search, rows, (Search(k),), alone=alone)
        refined = refiner.refine_features(rows, run_on_rank0(partial(_first, found), alone=alone))
        if refined.shape != rows.shape:
            raise ValueError(
                f"{type(refiner).__name__}.refine_features gave {list(refined.shape)} of features"
                f" {list(rows.shape)}; it must keep the shape."
            )
        features = refined
    return features


def _first(found: list[KnnGraph]) -> KnnGraph:
    return found[0]


class NeighborMean:
    """The mean of an image's feature and those of its nearest ones, all of one weight.

    Without parameters: what a learnt refinement has to beat.

    Args:
        neighbors: nearest other images, at least 1.
    Raises:
        ValueError: from `refine_features`, with fewer other images than that.

    Cost: N·neighbors·D, 512 images at a time.
    """

    def __init__(self, neighbors: int) -> None:
        self.neighbors_to_refine = neighbors + 1

    def refine_features(self, features: Tensor, neighbors: KnnGraph) -> Tensor:
        """Means [N, D] over the lists of neighbours, the image itself among them."""
        images, k = len(features), self.neighbors_to_refine
        if images < k:
            raise ValueError(
                f"CC.LABELS.SMOOTH_NEIGHBORS={k - 1} needs as many other images, found"
                f" {images - 1}. Lower it, or set it to 0."
            )
        refined = torch.empty_like(features)
        for rows in torch.arange(images).split(_ROWS):
            near = torch.from_numpy(neighbors.indices[rows.numpy()]).to(features.device)
            refined[rows] = features[near].mean(1)
        return refined
