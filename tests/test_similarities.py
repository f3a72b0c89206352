"""Similarities within and between clusters: equal to loops; the threshold does as it says."""

from __future__ import annotations

import numpy as np
import pytest

from fastreid_cc.labels.diagnostics import stability
from fastreid_cc.labels.similarities import Separation, cluster_centres, nearest_clusters, separate


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def made() -> tuple[np.ndarray, np.ndarray]:
    """30 images in five clusters of 3 to 8, one of which has no number, and three outliers."""
    generator = np.random.default_rng(3)
    labels = generator.permutation(np.repeat([0, 1, 2, 4, 5, -1], [3, 5, 4, 8, 7, 3]))
    centres = generator.normal(size=(7, 6))
    return unit(centres[labels] + generator.normal(0, 0.5, (30, 6))), labels


def test_pairs_equal_loops(made) -> None:
    features, labels = made
    names = sorted(set(labels[labels >= 0].tolist()))
    members = {c: [i for i in range(30) if labels[i] == c] for c in names}
    means = {c: unit(features[members[c]].mean(0)[None])[0] for c in names}
    within, pairs = [], set()
    for c in names:
        within += [features[i] @ features[j] for i in members[c] for j in members[c] if i < j]
        other = max((d for d in names if d != c), key=lambda d: means[c] @ means[d])
        pairs.add(frozenset((c, other)))
    between = [
        features[i] @ features[j]
        for a, b in map(sorted, pairs)
        for i in members[a]
        for j in members[b]
    ]
    found = separate(features, labels)
    np.testing.assert_allclose(found.within, np.sort(within), atol=1e-6)
    np.testing.assert_allclose(found.between, np.sort(between), atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.5])
def test_the_threshold_is_the_lowest_that_keeps_the_rate(made, rate) -> None:
    found = separate(*made)
    at = found.threshold(rate)
    assert found.false_match_rate(at) == pytest.approx(np.mean(found.between >= np.float32(at)))
    assert found.miss_rate(at) == pytest.approx(np.mean(found.within < np.float32(at)))
    assert found.false_match_rate(at) <= rate
    lower = float(np.nextafter(np.float32(at), np.float32(-2)))
    assert found.false_match_rate(lower) > rate


def test_equal_similarities_fall_on_one_side() -> None:
    found = Separation(np.ones(3, "f4"), np.array([0.1, 0.5, 0.5, 0.5], "f4"))
    assert found.threshold(0.3) > 0.5 and found.false_match_rate(found.threshold(0.3)) == 0
    assert found.threshold(0.75) == pytest.approx(0.1) and found.threshold(1) == -1


def test_without_a_second_cluster_there_is_no_threshold() -> None:
    features = unit(np.random.default_rng(0).normal(size=(6, 4)))
    found = separate(features, np.array([0, 0, 0, -1, -1, -1]))
    assert len(found.within) == 3 and np.isnan(found.threshold())
    assert len(separate(features, np.full(6, -1)).within) == 0
    assert nearest_clusters(cluster_centres(features, np.zeros(6, int)))[0].tolist() == [-1]


def test_large_clusters_are_thinned_and_names_do_not_matter(made) -> None:
    features, labels = made
    thin = separate(features, labels, per_cluster=4)
    assert (
        len(thin.within) == 3 + 6 * 4
        and np.isin(thin.within, separate(features, labels).within).all()
    )
    renamed = separate(features, np.where(labels < 0, -1, 7 * labels + 3))
    np.testing.assert_array_equal(renamed.within, separate(features, labels).within)


def test_labellings_are_compared_whatever_their_numbers() -> None:
    labels = np.array([0, 0, 1, 1, -1, 2, 2])
    assert stability(labels, np.array([2, 2, 0, 0, -1, 1, 1])) == 1
    assert stability(labels, np.array([0, 0, 1, 1, -1, 1, 1])) < 1
    assert stability(np.array([-1, -1, 0, 0]), np.array([0, 0, -1, -1])) == pytest.approx(-0.2)
