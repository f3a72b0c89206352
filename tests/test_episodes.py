"""Few-shot episodes: what is drawn, what is measured, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid_cc.labels.episodes import (
    Episodes,
    accuracies,
    confidence,
    draw,
    enrolled_map,
    find_people,
    linear_probe,
)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def world(people: int = 20, cameras: int = 4, images: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Identities and cameras in mixed order, with images of nobody among them."""
    ids = np.repeat(np.arange(people), cameras * images)
    cams = np.tile(np.repeat(np.arange(cameras), images), people)
    order = np.random.default_rng(0).permutation(len(ids) + 30)
    return np.r_[ids, np.full(30, -1)][order], np.r_[cams, np.zeros(30, int)][order]


@pytest.mark.parametrize("is_disjoint", [True, False])
@pytest.mark.parametrize(("ways", "shots", "queries"), [(5, 1, 3), (16, 5, 8), (20, 3, 1)])
def test_an_episode_holds_other_people_other_images_and_other_cameras(
    ways: int, shots: int, queries: int, is_disjoint: bool
) -> None:
    ids, cams = world()
    given_cams = cams if is_disjoint else None
    found = draw(
        ids, given_cams, ways=ways, shots=shots, queries=queries, episodes=40, seed=1
    )  # fmt: skip
    assert found.support.shape == (40, ways, shots) and found.query.shape == (40, ways, queries)
    shared = 0
    for support, query in zip(found.support, found.query, strict=True):
        people = ids[support]
        assert (people == people[:, :1]).all() and (ids[query] == people[:, :1]).all()
        assert len(set(people[:, 0])) == ways and people.min() >= 0
        assert len(set(np.r_[support.ravel(), query.ravel()])) == ways * (shots + queries)
        shared += sum(
            bool(set(cams[s]) & set(cams[q])) for s, q in zip(support, query, strict=True)
        )
    assert (shared == 0) == is_disjoint


def test_episodes_repeat_by_their_seed_and_draw_all_people_and_images() -> None:
    ids, cams = world()
    options = {"ways": 5, "shots": 2, "queries": 4, "episodes": 300}
    one, other, third = (draw(ids, cams, **options, seed=seed) for seed in (1, 1, 2))
    assert (one.support == other.support).all() and (one.query == other.query).all()
    assert (one.support != third.support).any()
    assert set(ids[one.support].ravel()) == set(range(20))
    seen = np.bincount(np.r_[one.support.ravel(), one.query.ravel()], minlength=len(ids))
    assert seen[ids >= 0].min() > 0
    everybody = draw(ids, cams, ways=0, shots=2, queries=4, episodes=2, seed=1)
    assert everybody.support.shape == (2, 20, 2)


@given(
    sizes=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=2, max_size=5),
    shots=st.integers(1, 4),
    queries=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_those_are_found_whose_cameras_can_be_parted_and_episodes_part_them(
    sizes: list[list[int]], shots: int, queries: int
) -> None:
    ids = np.concatenate([np.full(sum(own), i) for i, own in enumerate(sizes)])
    cams = np.concatenate([np.repeat(np.arange(len(own)), own) for own in sizes])
    able = []
    for i, own in enumerate(sizes):
        subsets = [[n for k, n in enumerate(own) if bits >> k & 1] for bits in range(2 ** len(own))]
        if any(sum(s) >= shots and sum(own) - sum(s) >= queries for s in subsets):
            able.append(i)
    people = find_people(ids, cams, shots, queries).rows
    assert [ids[rows[0]] for rows in people] == able
    if len(able) < 2:
        return
    found = draw(ids, cams, ways=2, shots=shots, queries=queries, episodes=8, seed=0)
    both = (side.reshape(16, -1) for side in (found.support, found.query))
    for support, query in zip(*both, strict=True):
        assert not set(cams[support]) & set(cams[query])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ways": 21}, "20 of 20 people have 1 images to enrol and, on other cameras, 3 more"),
        ({"shots": 14}, "0 of 20 people .* an episode wants 5"),
        ({"queries": 13}, "queries may be of the enrolled cameras, 20 have enough"),
        ({"queries": 13, "shots": 4}, "0 of 20 people .* 0 have enough"),
    ],
)
def test_too_few_people_or_images_are_refused_with_their_counts(
    options: dict[str, int], said: str
) -> None:
    ids, cams = world()
    wanted = {"ways": 5, "shots": 1, "queries": 3, "episodes": 3} | options
    with pytest.raises(ValueError, match=said):
        draw(ids, cams, **wanted, seed=0)


def test_one_camera_is_said_to_be_the_reason() -> None:
    ids, cams = world(cameras=1)
    with pytest.raises(ValueError, match="0 of 20 people .* enrolled cameras, 20 have"):
        draw(ids, cams, ways=2, shots=1, queries=1, episodes=1, seed=0)
    assert len(draw(ids, None, ways=2, shots=1, queries=1, episodes=1, seed=0)) == 1


@pytest.mark.parametrize("ways", [2, 5, 16])
def test_features_of_chance_give_one_in_w(ways: int) -> None:
    ids, cams = world(people=60)
    features = unit(np.random.default_rng(1).normal(size=(len(ids), 64)))
    found = draw(ids, cams, ways=ways, shots=2, queries=5, episodes=1500, seed=3)
    mean, half = confidence(accuracies(features, found))
    assert abs(mean - 1 / ways) < 3 * half + 0.01 and half < 0.02


def test_people_apart_are_all_told_by_prototypes_gallery_and_probe() -> None:
    ids, cams = world()
    rng = np.random.default_rng(2)
    features = unit(np.eye(32)[ids] + 0.02 * rng.normal(size=(len(ids), 32)))
    found = draw(ids, cams, ways=0, shots=1, queries=3, episodes=3, seed=0)
    assert (accuracies(features, found) == 1).all()
    assert (enrolled_map(features, found) == 1).all()
    assert (linear_probe(features, found) == 1).all()


def test_the_interval_halves_with_four_times_the_episodes() -> None:
    ids, cams = world()
    features = unit(np.eye(32)[ids] + 0.5 * np.random.default_rng(2).normal(size=(len(ids), 32)))
    halves = []
    for episodes in (500, 2000):
        found = draw(ids, cams, ways=5, shots=1, queries=3, episodes=episodes, seed=0)
        halves.append(confidence(accuracies(features, found))[1])
    assert halves[0] / halves[1] == pytest.approx(2, rel=0.1)


def test_accuracy_and_map_equal_a_loop_over_the_queries() -> None:
    ids, cams = world(people=8)
    features = unit(np.eye(16)[ids] + 0.7 * np.random.default_rng(5).normal(size=(len(ids), 16)))
    found = draw(ids, cams, ways=6, shots=2, queries=3, episodes=4, seed=0)
    right, inverse = [], []
    for support, query in zip(found.support, found.query, strict=True):
        means = [features[rows].mean(0) for rows in support]
        ranks = [
            1
            + sum(
                np.linalg.norm(features[q] - m) < np.linalg.norm(features[q] - own) for m in means
            )
            for own, rows in zip(means, query, strict=True)
            for q in rows
        ]
        right.append(np.mean([r == 1 for r in ranks]))
        inverse.append(np.mean([1 / r for r in ranks]))
    np.testing.assert_allclose(accuracies(features, found), right)
    np.testing.assert_allclose(enrolled_map(features, found), inverse)
    assert 0.2 < np.mean(right) < 1


def test_equal_features_are_no_hit_and_pieces_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids, cams = world()
    found = draw(ids, cams, ways=5, shots=1, queries=3, episodes=9, seed=0)
    assert (accuracies(unit(np.ones((len(ids), 4))), found) == 0).all()
    features = unit(np.random.default_rng(1).normal(size=(len(ids), 16)))
    whole = accuracies(features, found)
    monkeypatch.setattr("fastreid_cc.labels.episodes.CHUNK", 3000)
    np.testing.assert_array_equal(accuracies(features, found), whole)
    assert len(draw(ids, cams, ways=5, shots=1, queries=3, episodes=9, seed=0)) == 9


def test_one_episode_has_no_interval() -> None:
    mean, half = confidence(np.array([0.5]))
    assert mean == 0.5 and np.isnan(half)
    assert len(Episodes(np.zeros((3, 2, 1), int), np.zeros((3, 2, 1), int))) == 3
