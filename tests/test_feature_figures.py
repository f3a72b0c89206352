"""Figures of features without identities: against loops, at their limits, and in blocks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fastreid_cc.labels import feature_figures
from fastreid_cc.labels.feature_figures import (
    cross_camera_share,
    effective_rank,
    intrinsic_dimension,
    kept_links,
    nearest,
    neighbor_contrast,
    neighbor_density,
    reciprocity,
    shared_links,
    view_agreement,
    view_rank,
)

N, D, K = 30, 6, 4


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def features() -> np.ndarray:
    return unit(np.random.default_rng(0).normal(size=(N, D)))


@pytest.fixture
def views(features: np.ndarray) -> np.ndarray:
    return unit(features + 0.3 * np.random.default_rng(1).normal(size=(N, D)))


def near(x: np.ndarray, i: int, k: int = K, rows: np.ndarray | None = None) -> list[int]:
    """The k others nearest to image i, by a loop."""
    own = (x if rows is None else rows)[i]
    others = [j for j in range(len(x)) if j != i]
    return sorted(others, key=lambda j: (-float(own @ x[j]), j))[:k]


def test_neighbours_and_their_links(features: np.ndarray, views: np.ndarray) -> None:
    assert nearest(features, K).tolist() == [near(features, i) for i in range(N)]
    both = [len({*near(features, i)} & {*near(features, i, rows=views)}) / K for i in range(N)]
    assert view_agreement(features, views, K) == pytest.approx(np.mean(both))
    links = [(i, j) for i in range(N) for j in near(features, i)]
    mutual = [(i, j) for i, j in links if (j, i) in links]
    assert reciprocity(features, K) == pytest.approx(len(mutual) / len(links))
    kept = [j in near(views, i) for i, j in mutual]
    assert kept_links(features, views, K) == pytest.approx(np.mean(kept))


def test_the_rank_of_an_image_by_its_view(features: np.ndarray, views: np.ndarray) -> None:
    ranks = []
    for i in range(N):
        ahead = [j for j in range(N) if j != i and views[i] @ features[j] >= views[i] @ features[i]]
        ranks.append(1 / (1 + len(ahead)))
    assert view_rank(features, views) == pytest.approx(np.mean(ranks))
    assert view_rank(features, features) == 1
    same = np.tile(features[:1], (N, 1))
    assert view_rank(same, same) == pytest.approx(1 / N)
    assert view_rank(same * np.nan, same * np.nan) <= 1 / N


def test_images_of_a_group_do_not_come_before_each_other() -> None:
    """An object that turns: its mirror image is the object from the other side."""
    features = np.eye(6, dtype=np.float32)
    views = 0.6 * features + 0.8 * features[[1, 0, 3, 2, 4, 5]]
    assert view_rank(features, views) == pytest.approx((4 / 2 + 2) / 6)
    assert view_rank(features, views, np.array([0, 0, 1, 1, -1, -1])) == pytest.approx(1.0)
    ungrouped = np.array([0, 0, 1, 2, -1, -1])  # outliers are in no group together
    assert view_rank(features, views, ungrouped) < 1
    assert view_rank(features, views, np.full(6, -1)) == view_rank(features, views)


def test_cameras_of_neighbours(features: np.ndarray) -> None:
    cameras = np.arange(N) % 3
    others = [cameras[i] != cameras[j] for i in range(N) for j in near(features, i)]
    pairs = [cameras[i] != cameras[j] for i in range(N) for j in range(N) if i != j]
    found = cross_camera_share(features, cameras, K)
    assert found == pytest.approx(np.mean(others) / np.mean(pairs))
    assert math.isnan(cross_camera_share(features, np.zeros(N, int), K))


def test_density_contrast_and_dimension(features: np.ndarray) -> None:
    density, contrast, logs = [], [], []
    for i in range(N):
        cosines = np.array([features[i] @ features[j] for j in range(N) if j != i], np.float64)
        share = np.exp(cosines / 0.05) / np.exp(cosines / 0.05).sum()
        density.append(-(share * np.log(share)).sum())
        contrast.append((np.sort(cosines)[-K:].mean() - cosines.mean()) / cosines.std())
        first, second = np.sort(np.sqrt(2 - 2 * cosines))[:2]
        logs.append(np.log(second / first))
    assert neighbor_density(features) == pytest.approx(np.mean(density), rel=1e-4)
    assert neighbor_contrast(features, K) == pytest.approx(np.mean(contrast), rel=1e-4)
    assert intrinsic_dimension(features) == pytest.approx(1 / np.mean(logs), rel=1e-3)


def test_the_effective_rank_of_equal_axes_is_their_number() -> None:
    assert effective_rank(np.tile(np.eye(5, dtype=np.float32), (4, 1))) == pytest.approx(5)
    assert effective_rank(np.ones((4, 3), dtype=np.float32)) == pytest.approx(1)


OF_FEATURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "view_rank": view_rank,
    "view_agreement": view_agreement,
    "kept_links": kept_links,
    "reciprocity": lambda x, _: reciprocity(x),
    "neighbor_density": lambda x, _: neighbor_density(x),
    "neighbor_contrast": lambda x, _: neighbor_contrast(x),
    "intrinsic_dimension": lambda x, _: intrinsic_dimension(x),
    "cross_camera_share": lambda x, _: cross_camera_share(x, np.arange(len(x)) % 3),
}


@pytest.mark.parametrize("name", OF_FEATURES)
def test_blocks_and_the_order_of_images_change_nothing(
    name: str, features: np.ndarray, views: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = OF_FEATURES[name]
    whole = figure(features, views)
    monkeypatch.setattr(feature_figures, "BLOCK", 7)
    assert figure(features, views) == pytest.approx(whole, rel=1e-5)
    if name != "cross_camera_share":
        order = np.random.default_rng(2).permutation(N)
        assert figure(features[order], views[order]) == pytest.approx(whole, rel=1e-5)


def test_two_images_have_one_neighbour_each(features: np.ndarray) -> None:
    assert nearest(features[:2], 10).tolist() == [[1], [0]]
    assert reciprocity(features[:2]) == 1 == shared_links(*[nearest(features[:2], 5)] * 2)
