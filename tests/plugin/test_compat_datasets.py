"""Shims of items and samplers: endless loops become errors, broken samplers work."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from compat_runs import TookTooLongError, time_limit

pytestmark = pytest.mark.usefixtures("plugin")
NAMES = ["BalancedIdentitySampler", "NaiveIdentitySampler"]


@pytest.fixture
def without():
    from fastreid_cc.plugin.compat import disabled

    return disabled


def sampler(name, items, *args):
    from fastreid.data import samplers

    return getattr(samplers, name)(items, *args, 0)


def items(identities, images=4, cameras=2):
    return [
        (f"{p}_{i}.jpg", f"id_{p}", f"cam_{i % cameras}")
        for p in range(identities)
        for i in range(images)
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("identities", "batch", "instances", "message"),
    [
        (3, 16, 4, "3 identities.*IMS_PER_BATCH=16.*NUM_INSTANCE=4.*P=4"),
        (8, 10, 4, "IMS_PER_BATCH=10.*multiple of NUM_INSTANCE"),
        (8, 2, 4, "IMS_PER_BATCH=2.*multiple of NUM_INSTANCE"),
    ],
)
def test_a_sampler_that_can_never_fill_a_batch_says_so_when_it_starts(
    name, identities, batch, instances, message, without
):
    few = sampler(name, items(identities), batch, instances)
    with pytest.raises(ValueError, match=message):
        iter(few)
    if batch < instances:
        return  # stock divides by zero or yields nothing
    with without("refuse_too_few_identities"), time_limit(0.3), pytest.raises(TookTooLongError):
        next(iter(few))


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_that_can_fill_a_batch_is_left_alone(name, without):
    enough = sampler(name, items(4), 16, 4)
    ours = list(itertools.islice(iter(enough), 64))
    with without("refuse_too_few_identities"):
        assert ours == list(itertools.islice(iter(enough), 64))


def test_a_naive_sampler_over_two_processes_needs_a_batch_for_both(without, monkeypatch):
    from fastreid.utils import comm

    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    few = sampler("NaiveIdentitySampler", items(4, images=4), 16, 4)  # each identity fits once
    with pytest.raises(ValueError, match="P=8"):
        iter(few)
    more = sampler("NaiveIdentitySampler", items(4, images=8), 16, 4)
    with time_limit(2):
        assert len(list(itertools.islice(iter(more), 16))) == 16


def test_weighted_sets_fill_their_batches_in_proportion(without):
    many = items(6, images=8)
    args = ("SetReWeightSampler", many, 24, 2, (1, 2))
    with without("sample_weighted_sets"):
        with pytest.raises((ValueError, TookTooLongError)), time_limit(0.3):
            next(iter(sampler(*args)))
    with time_limit(2):
        batch = list(itertools.islice(iter(sampler(*args)), 24))
    per_identity = Counter(many[i][1] for i in batch)
    assert sum(per_identity.values()) == 24
    assert all(count % 2 == 0 for count in per_identity.values())  # NUM_INSTANCE images at a time


@pytest.mark.parametrize("weights", [(1, 1, 1), (7, 1)])
def test_weights_that_do_not_fit_the_cameras_are_named(weights):
    wrong = sampler("SetReWeightSampler", items(6), 4 * sum(weights), 2, weights)
    with time_limit(2), pytest.raises(ValueError, match="DATALOADER.SET_WEIGHT"):
        next(iter(wrong))


def test_identities_of_two_types_are_sorted(without):
    from fastreid.data.common import CommDataset

    mixed = [("a.jpg", "b", 0), ("b.jpg", 2, 1), ("c.jpg", "a", "x"), ("d.jpg", 1, "y")]
    with without("sort_mixed_identities"), pytest.raises(TypeError):
        CommDataset(mixed)
    assert CommDataset(mixed).pids == [1, 2, "a", "b"]
    assert CommDataset(items(12)).pids == sorted(f"id_{p}" for p in range(12))
    assert sampler("NaiveIdentitySampler", mixed, 4, 2).pids == [1, 2, "a", "b"]
