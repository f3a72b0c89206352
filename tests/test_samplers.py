"""P x K batches follow the published rules, repeat exactly, and split over processes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid_cc.data.samplers import (
    ClusterSampler,
    ViewSampler,
    augmentation_slots,
    draw_images,
    extra_batches,
)

RECORDED = np.load(Path(__file__).parent / "parity/sampler/sampler.npz")


def rules_broken(
    stream: np.ndarray, labels: np.ndarray, cameras: np.ndarray | None, instances: int
) -> list[str]:
    """The published rules, restated slowly over an index stream of one pass."""
    broken, at, seen = [], 0, []
    while at < len(stream):
        cluster = labels[stream[at]]
        members = np.flatnonzero(labels == cluster)
        drawn = stream[at : at + (instances if len(members) > 1 else 1)]
        at += len(drawn)
        seen.append(cluster)
        anchor, rest = drawn[0], drawn[1:]
        if (labels[drawn] != cluster).any() or cluster < 0:
            broken.append("a group mixes clusters")
        if len(members) == 1:
            continue
        if anchor in rest:
            broken.append("the anchor comes twice")
        pool = members[members != anchor]
        if cameras is not None and (cameras[members] != cameras[anchor]).any():
            pool = members[cameras[members] != cameras[anchor]]
        if not set(rest) <= set(pool):
            broken.append("an image of the anchor's camera")
        if len(pool) >= instances and len(set(rest)) < len(rest):
            broken.append("a repetition without need")
    if sorted(seen) != sorted(set(labels[labels >= 0])):
        broken.append("a pass does not show every cluster once")
    return broken


@pytest.mark.parametrize("instances", [4, 16])
@pytest.mark.parametrize("use_cameras", [True, False])
def test_the_recorded_streams_and_ours_follow_the_same_rules(
    instances: int, use_cameras: bool
) -> None:
    labels, cameras = RECORDED["pids"].astype(np.int64), RECORDED["cams"].astype(np.int64)
    known = cameras if use_cameras else None
    name = "cam" if use_cameras else "nocam"
    for epoch in (0, 1):
        stream = RECORDED[f"{name}_ni{instances}_epoch{epoch}"].astype(np.int64)
        assert rules_broken(stream, labels, known, instances) == []
    sampler = ClusterSampler(
        labels, known, num_instances=instances, batch_size=instances, num_batches=1, seed=3
    )
    ours = sampler.one_pass(np.random.default_rng(0))
    assert rules_broken(ours, labels, known, instances) == []
    assert len(ours) == len(RECORDED[f"{name}_ni{instances}_epoch0"])


@given(seed=st.integers(0, 10**6), size=st.integers(2, 9), instances=st.integers(2, 6))
@settings(max_examples=100, deadline=None)
def test_other_cameras_come_first_and_repetition_only_when_needed(
    seed: int, size: int, instances: int
) -> None:
    generator = np.random.default_rng(seed)
    members = generator.choice(1000, size, replace=False)
    cameras = generator.integers(0, 3, size)
    labels, all_cameras = np.full(1000, -1), np.zeros(1000, dtype=np.int64)
    labels[members], all_cameras[members] = 0, cameras
    drawn = draw_images(members, cameras, instances, generator)
    assert rules_broken(drawn, labels, all_cameras, instances) == []


def example(num_batches: int = 5, **changes: int) -> ClusterSampler:
    labels = np.repeat(np.arange(-1, 11), 6)
    cameras = np.tile([0, 0, 1, 1, 2, 2], 12)
    settings = {"rank": 0, "world_size": 1, **changes}
    return ClusterSampler(
        labels, cameras, num_instances=4, batch_size=16, num_batches=num_batches, seed=1, **settings
    )


def test_an_epoch_has_the_stated_batches_of_p_clusters() -> None:
    batches = list(example().batches(0))
    assert [len(b) for b in batches] == [16] * 5
    labels = np.repeat(np.arange(-1, 11), 6)
    for batch in batches:
        groups = labels[batch].reshape(4, 4)
        assert (groups == groups[:, :1]).all() and len(set(groups[:, 0])) == 4


def test_epochs_differ_and_repeat_exactly() -> None:
    first, again, other = (np.stack(list(example().batches(e))) for e in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_two_processes_share_the_batches_of_one() -> None:
    whole = example().local_batches(2)
    halves = [example(rank=r, world_size=2).local_batches(2) for r in (0, 1)]
    for n, batch in enumerate(whole):
        assert (np.concatenate([halves[0][n], halves[1][n]]) == batch).all()


def test_the_global_generators_stay_untouched() -> None:
    before = np.random.get_state()[1].copy()
    example().local_batches(0)
    assert (np.random.get_state()[1] == before).all()


def test_too_few_clusters_are_refused_with_the_keys_instead_of_a_hang() -> None:
    with pytest.raises(ValueError, match="2 clusters fill 8 of the 16.*IMS_PER_BATCH"):
        ClusterSampler(np.repeat([0, 1], 5), num_instances=4, batch_size=16, num_batches=1, seed=0)


def test_warm_up_batches_hold_each_drawn_image_once_per_view() -> None:
    sampler = ViewSampler(10, views=3, batch_size=12, num_batches=5, seed=0)
    batches = sampler.local_batches(0)
    assert [len(b) for b in batches] == [12] * 5
    groups = np.stack(batches).reshape(-1, 3)
    assert (groups == groups[:, :1]).all()
    assert sorted(groups[:10, 0]) == list(range(10))  # a pass before any image comes again
    halves = [
        ViewSampler(10, views=3, batch_size=12, num_batches=5, seed=0, rank=r, world_size=2)
        for r in (0, 1)
    ]
    for n, batch in enumerate(batches):
        parts = [half.local_batches(0)[n] for half in halves]
        assert (np.concatenate(parts) == batch).all()


def extra(**changes: object) -> np.ndarray:
    """i64 [27, 2] or less: two of four images beside each of 27 batches."""
    rows = np.array([7, 8, 9, 10])
    options = {"per_batch": 2, "num_batches": 27, "entropy": (1, 0), **changes}
    return np.stack(extra_batches(rows, **options))  # type: ignore[arg-type]


def test_extra_images_all_come_before_one_comes_again() -> None:
    found = extra()
    assert found.shape == (27, 2)
    assert all(sorted(found[n : n + 2].ravel()) == [7, 8, 9, 10] for n in range(0, 26, 2))
    assert (found == extra()).all()
    for other in ({"entropy": (1, 1)}, {"entropy": (2, 0)}):
        assert (found != extra(**other)).any()


def test_extra_images_of_two_processes_are_those_of_one() -> None:
    halves = [extra(rank=rank, world_size=2) for rank in (0, 1)]
    assert (np.concatenate(halves, axis=1) == extra()).all()


def test_an_image_has_the_same_place_on_any_number_of_processes() -> None:
    """Parts of 8, 4 and 2 images; slices of two processes laid together part by part."""
    alone = augmentation_slots([8, 4, 2], 3, 0, 1)
    assert (np.stack(alone) == np.arange(42).reshape(3, 14)).all()
    first, second = (augmentation_slots([4, 2, 1], 3, rank, 2) for rank in (0, 1))
    for whole, left, right in zip(alone, first, second, strict=True):
        parts = [(left[a:b], right[a:b]) for a, b in ((0, 4), (4, 6), (6, 7))]
        assert (np.concatenate([half for part in parts for half in part]) == whole).all()


@given(seed=st.integers(0, 10**6), size=st.integers(2, 12), instances=st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_every_tracklet_gives_an_image_before_one_gives_a_second(
    seed: int, size: int, instances: int
) -> None:
    generator = np.random.default_rng(seed)
    members, cameras = np.arange(100, 100 + size), generator.integers(0, 2, size)
    tracklets = generator.integers(0, 4, size)
    drawn = draw_images(members, cameras, instances, generator, tracklets)
    anchor, rest = drawn[0], drawn[1:]
    pool = [m for m in members if cameras[m - 100] != cameras[anchor - 100]]
    pool = pool or [m for m in members if m != anchor]
    assert len(rest) == instances - 1 and set(rest) <= set(pool)
    times = np.unique(rest, return_counts=True)[1]
    assert len(pool) < len(rest) or times.max(initial=1) == 1
    assert times.max(initial=1) - times.min(initial=1) <= 1 or len(set(rest)) == len(pool)
    if len(pool) >= len(rest):
        left = {t: sum(tracklets[m - 100] == t for m in pool) for t in range(4)}
        given = {t: sum(tracklets[m - 100] == t for m in drawn) for t in range(4)}
        own = tracklets[anchor - 100]
        left[own] += 1
        for t in range(4):  # one with fewer images drawn than another has no more to give
            if given[t] < max(given.values()) - 1:
                assert given[t] == left[t]


def test_a_sampler_told_tracklets_draws_them_and_others_keep_their_bytes() -> None:
    labels, tracklets = np.repeat([0, 1], 8), np.repeat(np.arange(4), 4)
    options = {"num_instances": 2, "batch_size": 4, "num_batches": 8, "seed": 0}
    told = np.stack(ClusterSampler(labels, tracklets=tracklets, **options).local_batches(0))
    plain = np.stack(ClusterSampler(labels, **options).local_batches(0))
    for drawn, is_told in ((told, True), (plain, False)):
        pairs = tracklets[drawn].reshape(-1, 2)
        assert (pairs[:, 0] != pairs[:, 1]).all() == is_told
