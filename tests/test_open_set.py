"""New or known without identities, and how many: on planted worlds whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from fastreid_cc.labeling.dense import count_unnamed, dense_jaccard
from fastreid_cc.labels.counting import cosine_distances, count_individuals
from fastreid_cc.labels.open_set import calibrate, nearest_cosines, separate_open_set
from fastreid_cc.labels.similarities import Separation


def world(people: int, images: int, seed: int, noise: float = 0.5) -> tuple[np.ndarray, ...]:
    """Features f32 [N, 16] of unit length and identities; of each person 2 to `images` images."""
    generator = np.random.default_rng(seed)
    ids = np.repeat(np.arange(people), generator.integers(2, images + 1, people))
    x = generator.normal(size=(people, 16))[ids] + generator.normal(0, noise, (len(ids), 16))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), ids


def test_nearest_cosines_equal_a_loop() -> None:
    x, _ = world(9, 6, 0)
    best, rows = nearest_cosines(x[:10], x[10:])
    wanted = [max((float(a @ b), -j) for j, b in enumerate(x[10:])) for a in x[:10]]
    np.testing.assert_allclose(best, [value for value, _ in wanted], rtol=1e-5)
    assert rows.tolist() == [-j for _, j in wanted]


def test_expected_rates_are_those_of_other_individuals_of_the_same_kind() -> None:
    """The threshold of 60 clusters, tried on 60 other people: new ones and known ones."""
    got = calibrate(separate_open_set(*world(60, 12, 1)))
    x, ids = world(60, 12, 2)
    later = separate_open_set(x, ids, seed=5)
    assert 0.005 < got.false_match_rate < 0.2
    assert abs(later.false_match_rate(got.threshold) - got.false_match_rate) < 0.05
    assert abs(later.miss_rate(got.threshold) - got.miss_rate) < 0.05
    best = calibrate(later)
    lost = (later.false_match_rate(got.threshold) + later.miss_rate(got.threshold)) / 2
    assert lost - (best.false_match_rate + best.miss_rate) / 2 < 0.02


def test_a_stated_rate_is_kept_and_outliers_ask_as_strangers() -> None:
    x, ids = world(40, 8, 3)
    found = separate_open_set(x, ids)
    strict = calibrate(found, max_false_match_rate=0.01)
    assert strict.false_match_rate <= 0.01 and strict.threshold > calibrate(found).threshold
    some = np.where(ids < 5, -1, ids)
    assert len(separate_open_set(x, some).between) > len(
        separate_open_set(x[ids >= 5], ids[ids >= 5]).between
    )
    assert (found.within >= -1).all() and (np.diff(found.between) >= 0).all()


def test_nothing_to_calibrate_with_is_said() -> None:
    x, ids = world(4, 4, 0)
    with pytest.raises(ValueError, match="1 clusters of two images"):
        separate_open_set(x, np.where(ids == 2, 0, -1))


def test_the_middle_of_equally_good_thresholds_is_taken() -> None:
    within, between = np.array([0.8, 0.9], "f4"), np.array([0.1, 0.2], "f4")
    got = calibrate(Separation(within, between))
    assert got == pytest.approx((0.8, 0, 0), abs=1e-6) or 0.2 < got.threshold <= 0.8


def test_dense_jaccard_is_a_distance_of_neighbourhoods() -> None:
    x, ids = world(6, 8, 4, noise=0.2)
    found = dense_jaccard(x, 6)
    assert found.shape == (len(x), len(x)) and (found == found.T).all()
    assert (np.diag(found) == 0).all() and found.min() >= 0 and found.max() <= 1
    same = (ids[:, None] == ids) & ~np.eye(len(x), dtype=bool)
    assert found[same].mean() < 0.7 < found[~same & ~np.eye(len(x), dtype=bool)].mean()


def test_the_interval_holds_the_truth_and_grows_with_it() -> None:
    held, widths, estimates = 0, [], {}
    for seed in range(6):
        for truth in (20, 40):
            x, ids = world(20 + truth, 10, seed)
            named = ids < 20
            found = count_unnamed(x[named], ids[named].astype(np.int64), x[~named])
            held += found.low <= truth <= found.high
            widths.append((found.high - found.low) / found.estimate)
            estimates.setdefault(truth, []).append(found.estimate)
    assert held >= 9 and np.mean(widths) < 0.6
    assert 1.5 < np.mean(estimates[40]) / np.mean(estimates[20]) < 2.7


def test_a_cut_that_leaves_one_cluster_is_no_answer() -> None:
    """All images of a distance 1 join at once: as many as are named would always be the answer."""
    ids = np.repeat(np.arange(12), 3)
    names = np.where(ids < 4, ids, -1)
    flat = np.ones((36, 36), np.float32)
    np.fill_diagonal(flat, 0)
    assert count_individuals([flat], names).estimate == pytest.approx(8)


def test_too_little_to_count_by_is_said() -> None:
    x, ids = world(5, 4, 0)
    with pytest.raises(ValueError, match="2 named individuals"):
        count_individuals([cosine_distances(x)], np.where(ids < 2, ids, -1))
    with pytest.raises(ValueError, match="0 images without a name"):
        count_individuals([cosine_distances(x)], ids)
