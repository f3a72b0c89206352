"""Label-free criteria: closed forms, limits, what a collapse gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid_cc.labels.feature_figures import effective_rank
from fastreid_cc.labels.fitness import (
    SHARES,
    cluster_shares,
    criteria,
    kl_to_zipf,
    zipf,
)


def harmonic(k: int) -> float:
    return math.fsum(1 / i for i in range(1, k + 1))


def people(count: int = 12, images: int = 20, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.eye(16)[np.repeat(np.arange(count), images)] + noise * rng.normal(
        size=(count * images, 16)
    )
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("k", "rounded"), [(80, 1.602510), (751, 1.974), (25, 1.34)])
def test_one_cluster_of_k_is_the_logarithm_of_the_harmonic_number_away(
    k: int, rounded: float
) -> None:
    one = np.zeros(k)
    one[k // 2] = 5
    assert kl_to_zipf(one, 1.0) == pytest.approx(math.log(harmonic(k)), abs=1e-9)
    assert kl_to_zipf(one, 1.0) == pytest.approx(rounded, abs=5e-3)


def test_equal_clusters_against_zipf_have_the_known_value() -> None:
    k = 80
    exact = math.log(harmonic(k) / k) + math.fsum(math.log(i) for i in range(1, k + 1)) / k
    assert kl_to_zipf(np.full(k, 3.0), 1.0) == pytest.approx(exact, abs=1e-9)
    assert exact == pytest.approx(0.641397, abs=1e-6)


@given(
    counts=st.lists(st.integers(0, 50), min_size=2, max_size=30).filter(any),
    s=st.floats(0, 3),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_the_divergence_is_no_less_than_zero_and_does_not_know_the_order(
    counts: list[int], s: float, seed: int
) -> None:
    p = np.array(counts, float)
    value = kl_to_zipf(p, s)
    assert value >= -1e-12
    order = np.random.default_rng(seed).permutation(len(p))
    assert kl_to_zipf(7 * p[order], s) == pytest.approx(value, abs=1e-12)
    shares = p[p > 0] / p.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    assert kl_to_zipf(p, 0.0) == pytest.approx(math.log(len(p)) - entropy, abs=1e-9)
    assert kl_to_zipf(zipf(len(p), s), s) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("bad", [np.array([0.5, math.nan]), np.zeros(3), np.array([math.inf, 1])])
def test_no_clusters_and_no_numbers_are_infinitely_far(bad: np.ndarray) -> None:
    assert kl_to_zipf(bad, 1.0) == math.inf


def test_shares_of_separated_people_are_counts_but_in_the_papers_form_nearly_nothing() -> None:
    """On unit features the paper's 2σ² = 1 spreads an image over all clusters."""
    sizes = np.round(240 * zipf(12, 1.0)).astype(int)
    x = people(noise=0.02)
    rows = np.concatenate([20 * i + np.arange(n) % 20 for i, n in enumerate(sizes)])
    x, centroids = x[rows], np.eye(12, 16)
    expected = sizes / sizes.sum()
    np.testing.assert_allclose(cluster_shares(x, centroids, "hard"), expected)
    np.testing.assert_allclose(cluster_shares(x, centroids, "variance"), expected, atol=1e-6)
    soft = cluster_shares(x, centroids, "paper")
    assert soft.sum() == pytest.approx(1) and np.ptp(soft) < 0.4 * np.ptp(expected)
    by_loop = np.zeros(12)
    for row in x.astype(np.float64):
        p = np.exp(-np.square(row - centroids).sum(1))
        by_loop += p / p.sum() / len(x)
    np.testing.assert_allclose(soft, by_loop, atol=1e-12)


def test_criteria_prefer_people_apart_to_noise_and_see_a_collapse() -> None:
    good = criteria(people(), clusters=12, s=0.0)
    noise = criteria(people(noise=3.0), clusters=12, s=0.0)
    assert good["silhouette"] > 0.5 > noise["silhouette"]
    assert good["stability"] > noise["stability"]
    assert good["fitness"] == good["kl_uniform"]
    same = criteria(np.tile(people()[:1], (50, 1)), clusters=12)
    assert same["fitness"] == pytest.approx(math.log(harmonic(12)))
    assert math.isnan(same["silhouette"]) and same["rank"] == pytest.approx(1)
    assert effective_rank(np.eye(7)) == pytest.approx(7)


@pytest.mark.parametrize("shares", SHARES)
def test_the_same_features_give_the_same_figures_and_their_rotation_too(shares: str) -> None:
    x = people()
    one, other = (criteria(x, clusters=8, shares=shares) for _ in range(2))
    assert one == other
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]
    turned = criteria((x @ turn).astype(np.float32), clusters=8, shares=shares)
    assert turned == pytest.approx(one, abs=1e-4)


def test_what_is_no_number_or_has_no_cluster_is_the_worst() -> None:
    x = people()
    x[3, 2] = np.nan
    found = criteria(x, clusters=5, labels=np.zeros(240, int))
    assert found["fitness"] == math.inf and math.isnan(found["rank"]) and found["outliers"] == 0
    assert criteria(people(), clusters=5, labels=np.full(240, -1))["fitness"] == math.inf
    half = np.arange(240) % 2 - 1
    assert criteria(people(), clusters=5, labels=half)["outliers"] == 0.5
    with pytest.raises(ValueError, match="10 images are fewer than 12 clusters"):
        criteria(people()[:10], clusters=12)
