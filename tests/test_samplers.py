"""P x K batches follow the published rules, repeat exactly, and split over processes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid_cc.data.samplers import ClusterSampler, ViewSampler, add_images, draw_images

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


def test_added_images_come_last_and_all_before_one_comes_again() -> None:
    batches, rows = [np.array([1, 1, 2, 2])] * 3, np.array([7, 8, 9, 10])
    found = add_images(batches, rows, 2, entropy=(1, 0))
    assert [batch[:4].tolist() for batch in found] == [[1, 1, 2, 2]] * 3
    drawn = np.concatenate([batch[4:] for batch in found])
    assert sorted(drawn[:4]) == rows.tolist() and set(drawn[4:]) < set(rows.tolist())
    again = add_images(batches, rows, 2, entropy=(1, 0))
    assert all((a == b).all() for a, b in zip(found, again, strict=True))
    for other in ({"entropy": (1, 1)}, {"entropy": (2, 0)}, {"entropy": (1, 0), "rank": 1}):
        others = np.concatenate(add_images(batches * 9, rows, 2, **other))  # type: ignore[arg-type]
        assert (others != np.concatenate(add_images(batches * 9, rows, 2, entropy=(1, 0)))).any()
