"""Mined triplets: equal to all triplets sorted by loss; random ones; what cannot be mined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid_cc.data import triplet_mining
from fastreid_cc.data.triplet_mining import (
    NothingToMine,
    TripletMining,
    draw_any,
    draw_queries,
    mine,
)


def pool(seed: int, images: int, people: int) -> tuple[torch.Tensor, np.ndarray]:
    """Unit rows f64 [M, 6] and labels i64 [M], some with one image, in mixed order."""
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.normal(size=(images, 6)))
    return torch.nn.functional.normalize(rows), rng.integers(0, people, images)


def hardest(f: torch.Tensor, labels: np.ndarray, q: int, top: int, skip: float) -> list[list[int]]:
    """A query's `top` triplets of highest loss, by sorting all of them."""
    squares = ((f[q] - f) ** 2).sum(1).tolist()
    others = [i for i in np.argsort(squares, kind="stable").tolist() if labels[i] != labels[q]]
    others = others[min(int(skip * len(others)), len(others) - 1) :]
    own = [i for i in range(len(f)) if labels[i] == labels[q] and i != q]
    triplets = [(squares[n] - squares[p], p, n) for p in own for n in others]
    return [[q, p, n] for _, p, n in sorted(triplets)[:top]]


@pytest.mark.parametrize(("top", "skip"), [(1, 0.0), (5, 0.0), (25, 0.0), (5, 0.2), (10_000, 0.9)])
def test_a_querys_triplet_is_drawn_from_its_hardest_by_brute_force(
    top: int, skip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = pool(0, 40, 9)
    if top < 100:  # several chunks
        monkeypatch.setattr(triplet_mining, "CELLS", 7 * max(40, top * top // 5))
    rng = np.random.default_rng(1)
    queries = draw_queries(labels, 60, rng)
    draws = np.random.default_rng(2).random(60)
    found = mine(features, labels, queries, top=top, skip=skip, generator=np.random.default_rng(2))
    for q, draw, triplet in zip(queries.tolist(), draws.tolist(), found.tolist(), strict=True):
        wanted = hardest(features, labels, q, top, skip)
        assert triplet == wanted[int(draw * len(wanted))]


def test_all_of_the_hardest_are_drawn_equally_often() -> None:
    features, labels = pool(3, 30, 4)
    queries = np.zeros(4000, np.int64)
    found = mine(features, labels, queries, top=5, skip=0, generator=np.random.default_rng(0))
    seen, counts = np.unique(found, axis=0, return_counts=True)
    assert sorted(seen.tolist()) == sorted(hardest(features, labels, 0, 5, 0.0))
    assert counts.min() > 700 and counts.max() < 900


@given(seed=st.integers(0, 10**6), images=st.integers(3, 40), people=st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_a_triplet_is_one_and_its_query_never_its_own_positive(
    seed: int, images: int, people: int
) -> None:
    features, labels = pool(seed, images, people)
    rng = np.random.default_rng(seed)
    try:
        queries = draw_queries(labels, 12, rng)
    except NothingToMine:
        counts = np.bincount(labels)
        assert counts.max() in (1, len(labels))
        return
    alike = torch.ones_like(features)  # ties everywhere
    for q, p, n in (
        *mine(features, labels, queries, top=3, skip=0.1, generator=rng),
        *mine(alike, labels, queries, top=3, skip=0.1, generator=rng),
        *draw_any(labels, queries, rng),
    ):
        assert labels[q] == labels[p] != labels[n] and q != p


def test_any_triplet_is_drawn_uniformly_over_the_positives_and_the_negatives() -> None:
    labels = np.array([5, 2, 5, 7, 5, 2, 7, 7])
    found = draw_any(labels, np.full(6000, 4), np.random.default_rng(0))
    pairs, counts = np.unique(found[:, 1:], axis=0, return_counts=True)
    assert pairs.tolist() == [[p, n] for p in (0, 2) for n in (1, 3, 5, 6, 7)]
    assert counts.min() > 520 and counts.max() < 680


def test_queries_come_once_before_any_comes_twice_and_images_alone_never() -> None:
    labels = np.array([0, 1, 1, 2, 2, 2, 3])
    found = draw_queries(labels, 10, np.random.default_rng(0))
    assert sorted(found[:5].tolist()) == sorted(found[5:].tolist()) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 2], ("3 images of 3 identities", "3 of them with one image", "CC.MINING.POOL")),
        ([4, 4, 4, 4], ("4 images of 1 identities", "0 of them with one image")),
        ([], ("0 images of 0 identities",)),
    ],
)
def test_a_pool_without_a_triplet_is_told_with_counts(labels: list[int], words: tuple) -> None:
    with pytest.raises(NothingToMine) as caught:
        draw_queries(np.array(labels, np.int64), 4, np.random.default_rng(0))
    assert all(word in str(caught.value) for word in words), caught.value


def test_mining_never_makes_a_table_of_all_triplets() -> None:
    """Peak memory of 64 queries in 3,000 images: tables of [b, M], not [b, M, M]."""
    features, labels = pool(1, 3000, 300)
    with torch.profiler.profile(profile_memory=True) as told:
        queries = draw_queries(labels, 64, np.random.default_rng(0))
        mine(features, labels, queries, top=25, skip=0, generator=np.random.default_rng(0))
    largest = max(event.cpu_memory_usage for event in told.events())
    assert 0 < largest <= 64 * 3000 * 8 * 4


def test_bad_options_are_named() -> None:
    for name, value in (("pool", 2), ("period", 0), ("top", -1), ("triplets", 0), ("skip", 1.0)):
        with pytest.raises(ValueError, match=f"CC.MINING.{name.upper()}={value}"):
            TripletMining(**{name: value})
