"""Merge proposals: which clusters follow which, and what an epoch's sets say about them."""

import numpy as np
import pytest
import torch
from oracles.losses import filled, make_batch

from fastreid_cc.labeling.refiners.merge_proposals import MergeProposals, join
from fastreid_cc.memories.cluster import ClusterMemory

PAIR = np.array([[0, 1]])


def test_the_followers_of_a_pair_are_joined_and_nothing_else():
    previous = np.array([0, 0, 0, 1, 1, 1, 2, 2, -1, 3])
    labels = np.array([0, 0, 1, 2, 2, 2, 3, 3, 4, -1])  # 0 was split: its larger part follows it
    np.testing.assert_array_equal(join(labels, previous, PAIR), [0, 0, 1, 0, 0, 0, 2, 2, 3, -1])
    np.testing.assert_array_equal(join(labels, previous, np.empty((0, 2), np.int64)), labels)


def test_chains_of_pairs_become_one_cluster():
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    pairs = np.array([[0, 1], [1, 3]])
    np.testing.assert_array_equal(join(labels, labels, pairs), [0, 0, 0, 0, 1, 1, 0, 0])


def test_an_old_cluster_without_a_follower_is_left_out():
    previous = np.array([0, 0, 1, 1, 2, 2, 2])
    mixed = np.array([0, 1, 0, 1, 2, 2, 2])  # neither new cluster is mostly one old one
    np.testing.assert_array_equal(join(mixed, previous, PAIR), mixed)
    gone = np.array([-1, -1, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(join(gone, previous, PAIR), gone)
    np.testing.assert_array_equal(join(np.full(7, -1), previous, PAIR), [-1] * 7)


def watched(**kwargs):
    """A refiner that saw a batch in which clusters 0 and 1 are as good as one, and 2 is apart."""
    rows = torch.tensor([[1.0, 0.02, 0.0], [1.0, -0.02, 0.0], [0.0, 0.0, 1.0]])
    memory = filled(torch.nn.functional.normalize(rows), temperature=0.05)
    memory.set_epoch(5)
    labels = np.array([0, 0, 1, 1, 2, 2])
    refiner = MergeProposals(set_size=1.7, **kwargs)
    refiner.start(labels)
    targets = torch.from_numpy(labels)
    refiner.observe(make_batch(rows[targets] * 3, targets), memory)
    return refiner, memory, labels


def test_clusters_that_share_the_sets_of_an_epoch_are_joined():
    refiner, _, labels = watched()
    joined = refiner.refine(labels, {})
    np.testing.assert_array_equal(joined, [0, 0, 0, 0, 1, 1])
    again = MergeProposals(set_size=1.7)
    again.load_state_dict(refiner.state_dict())
    np.testing.assert_array_equal(again.refine(labels, {}), joined)
    refiner.start(joined)  # nothing counted yet for these
    np.testing.assert_array_equal(refiner.refine(labels, {}), labels)


def test_epochs_before_the_start_and_images_without_a_cluster_do_not_count():
    refiner, memory, labels = watched(start_epoch=6)
    np.testing.assert_array_equal(refiner.refine(labels, {}), labels)
    memory.set_epoch(6)
    refiner.observe(make_batch(memory.rows[[0, 1]], torch.tensor([-1, -1])), memory)
    np.testing.assert_array_equal(refiner.refine(labels, {}), labels)


def test_source_classes_are_no_clusters():
    rows = torch.eye(4)
    memory = ClusterMemory()
    memory.reset(rows[1:], torch.arange(3), source_centroids=rows[:1])
    memory.set_epoch(5)
    refiner = MergeProposals(set_size=1.0)
    labels = np.arange(3)
    refiner.start(labels)
    refiner.observe(make_batch(rows, torch.arange(4)), memory)
    assert refiner.counts.tolist() == torch.eye(3).tolist()  # the source image has no share in k


@pytest.mark.parametrize("key, value", [("set_size", 0.5), ("share", 1.0), ("start_epoch", -1)])
def test_parameters_out_of_range_name_their_key(key, value):
    with pytest.raises(ValueError, match=f"CC.REFINE.MERGE_PROPOSALS.{key.upper()}={value}"):
        MergeProposals(**{key: value})
