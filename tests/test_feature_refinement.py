"""Features refined before clustering, one refiner after the other.

In two processes: test_two_process_losses_memory.py, plugin/test_refined_features.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.losses import unit_rows
from torch import Tensor

from fastreid_cc.labeling import feature_refinement
from fastreid_cc.labeling.feature_refinement import NeighborMean, refined_features
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.structures import KnnGraph

X = 3 * unit_rows(40, 8, seed=3).float()


def refined(*refiners: object, x: Tensor = X) -> Tensor:
    return refined_features(x, refiners, ExactKNN())


def test_without_refiners_the_features_are_those_given() -> None:
    assert refined() is X


def test_the_mean_of_the_nearest_equals_loops_and_chunks_do_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    f = X / X.norm(dim=1, keepdim=True)
    rows = []
    for i in range(40):
        order = sorted(range(40), key=lambda j: -float(f[i] @ f[j]) - (i == j))
        rows.append(torch.stack([f[j] for j in order[:6]]).mean(0))
    torch.testing.assert_close(refined(NeighborMean(5)), torch.stack(rows))
    monkeypatch.setattr(feature_refinement, "_ROWS", 7)
    torch.testing.assert_close(refined(NeighborMean(5)), torch.stack(rows))


def test_each_refiner_sees_what_the_one_before_it_gave_at_unit_length() -> None:
    seen: list[Tensor] = []

    class Spy:
        neighbors_to_refine = 3

        def refine_features(self, features: Tensor, neighbors: KnnGraph) -> Tensor:
            seen.append(features)
            assert neighbors.k == 3 and (neighbors.indices[:, 0] == np.arange(40)).all()
            return 2 * features

    found = refined(NeighborMean(2), Spy(), Spy())
    first = torch.nn.functional.normalize(refined(NeighborMean(2)))
    torch.testing.assert_close(seen[0], first)
    torch.testing.assert_close(seen[1], first)
    torch.testing.assert_close(found, 2 * first)


def test_a_refiner_that_changes_the_shape_is_named() -> None:
    class Narrow:
        neighbors_to_refine = 1

        def refine_features(self, features: Tensor, neighbors: KnnGraph) -> Tensor:
            return features[:, :4]

    with pytest.raises(ValueError, match=r"Narrow\.refine_features gave \[40, 4\].*\[40, 8\]"):
        refined(Narrow())


@pytest.mark.parametrize("images", [1, 5])
def test_more_neighbours_than_images_are_refused(images: int) -> None:
    with pytest.raises(ValueError, match=rf"SMOOTH_NEIGHBORS=5 needs .* found {images - 1}\."):
        refined(NeighborMean(5), x=X[:images])
