from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import losses as oracle
from oracles.losses import filled, make_batch, unit_rows

from fastreid_cc.losses.memory_contrast import MemoryContrast
from fastreid_cc.memories import updates
from fastreid_cc.memories.cluster import ClusterMemory

PARITY = Path(__file__).parent / "parity" / "memories"
RULES = {
    "all": (updates.update_all, oracle.sequential_update),
    "hard": (updates.update_hard, oracle.hard_update),
    "mean": (updates.update_mean, oracle.mean_update),
}


@pytest.mark.parametrize("path", sorted(PARITY.glob("cm_*.npz")), ids=lambda p: p.stem)
def test_three_steps_equal_the_recording_of_cluster_contrast(path):
    data = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(path).items()}
    memory = filled(
        data["memory0"],
        temperature=float(data["temp"]),
        momentum=float(data["momentum"]),
        update="hard" if data["use_hard"] else "all",
    )
    loss_of = MemoryContrast()
    for step in ("s0_", "s1_", "s2_"):
        x = data[step + "inputs"].clone().requires_grad_()
        batch = make_batch(x, data[step + "targets"])
        logits = memory.logits(F.normalize(x), batch)
        torch.testing.assert_close(logits, data[step + "logits"], atol=1e-5, rtol=0)
        loss = loss_of(batch, memory)
        loss.backward()
        torch.testing.assert_close(loss, data[step + "loss"], atol=2e-6, rtol=0)
        torch.testing.assert_close(x.grad, data[step + "grad_inputs"], atol=2e-6, rtol=0)
        memory.update(batch)
        torch.testing.assert_close(memory.rows, data[step + "memory_after"], atol=2e-6, rtol=0)


@pytest.mark.parametrize("eps", ["05", "07"])
def test_reset_gives_the_recorded_centroids(eps):
    data = np.load(PARITY / "group_means.npz")
    features = torch.from_numpy(data["features"])
    labels = torch.from_numpy(data[f"labels_eps{eps}"]).long()
    means = updates.group_means(features, labels, int(labels.max()) + 1)
    np.testing.assert_allclose(means, data[f"centers_eps{eps}"], atol=1e-6)
    memory = ClusterMemory()
    memory.reset(features, labels)
    np.testing.assert_allclose(memory.rows, data[f"memory0_eps{eps}"], atol=1e-6)


@given(
    rule=st.sampled_from(sorted(RULES)),
    index=st.lists(st.integers(-1, 5), min_size=1, max_size=24),
    momentum=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_vectorised_updates_equal_the_loop_for_any_order_and_counts(rule, index, momentum, seed):
    update, slow = RULES[rule]
    rows, features = unit_rows(6, 4, seed=seed), unit_rows(len(index), 4, seed=seed + 100)
    index = torch.tensor(index)
    expected = slow(rows, index, features, momentum)
    given_features = features.clone()
    update(rows, index, features, momentum)
    torch.testing.assert_close(rows, expected, atol=1e-12, rtol=0)
    assert torch.equal(features, given_features)


@given(
    rule=st.sampled_from(["hard", "mean"]),
    index=st.lists(st.integers(-1, 5), min_size=1, max_size=16),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_the_padded_form_for_cuda_equals_the_loop_too(rule, index, seed):
    update, slow = RULES[rule]
    rows, features = unit_rows(6, 4, seed=seed), unit_rows(len(index), 4, seed=seed + 100)
    index = torch.tensor(index)
    expected = slow(rows, index, features, 0.3)
    with mock.patch.object(updates, "is_padded", return_value=True):
        update(rows, index, features, 0.3)
    torch.testing.assert_close(rows, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("rule", [*RULES, "random"])
def test_momentum_one_leaves_the_rows_alone_to_the_byte(rule):
    memory = filled(unit_rows(5, 8, dtype=torch.float32), update=rule, momentum=1.0)
    before = memory.rows.clone()
    memory.update(make_batch(unit_rows(7, 8, seed=1), torch.tensor([0, 1, 1, 3, 3, 3, -1])))
    assert torch.equal(memory.rows, before)


def test_momentum_zero_copies_the_last_sample_of_each_cluster():
    memory = filled(unit_rows(3, 8), momentum=0.0)
    features = unit_rows(5, 8, seed=1)
    memory.update(make_batch(features * 3, torch.tensor([2, 0, 2, 0, 2])))
    torch.testing.assert_close(memory.rows[[0, 2]], features[[3, 4]])
    torch.testing.assert_close(memory.rows[1], unit_rows(3, 8)[1])


@pytest.mark.parametrize("rule", RULES)
def test_all_rules_agree_with_one_image_per_cluster(rule):
    memory, other = (filled(unit_rows(4, 8), update=r, momentum=0.3) for r in (rule, "all"))
    batch = make_batch(unit_rows(3, 8, seed=2), torch.tensor([3, 0, 2]))
    memory.update(batch)
    other.update(batch)
    torch.testing.assert_close(memory.rows, other.rows)


def test_random_rule_with_momentum_zero_replaces_each_row_by_one_of_its_images():
    memory = filled(unit_rows(3, 8), update="random", momentum=0.0)
    features, targets = unit_rows(9, 8, seed=1), torch.tensor([0, 0, 0, 0, 2, 2, 2, 2, -1])
    chosen = set()
    for _ in range(40):
        memory.update(make_batch(features, targets))
        for row in (0, 2):
            hit = torch.isclose(features, memory.rows[row]).all(1).nonzero()[0, 0]
            assert targets[hit] == row
            chosen.add(int(hit))
    assert chosen == set(range(8))


def test_a_restored_memory_continues_with_the_same_bytes():
    batch = make_batch(unit_rows(8, 8, seed=1), torch.tensor([0, 0, 0, 0, 2, 2, 2, 2]))
    memory, other = filled(unit_rows(3, 8), update="random"), ClusterMemory(update="random")
    other.set_state(memory.get_state())
    memory.update(batch)
    other.update(batch)
    assert torch.equal(memory.rows, other.rows)


def test_random_init_takes_a_member_of_each_cluster_and_follows_the_generator():
    features, labels = unit_rows(30, 8), torch.arange(30) % 4 - 1
    seen = set()
    for seed in range(8):
        memory = ClusterMemory(init="random")
        memory.reset(features, labels, generator=torch.Generator().manual_seed(seed))
        hits = [int((features @ row).argmax()) for row in memory.rows]
        assert [int(labels[h]) for h in hits] == [0, 1, 2]
        seen.add(tuple(hits))
    assert len(seen) > 4


def test_sources_come_first_and_outliers_are_not_trained():
    features, labels = unit_rows(6, 8), torch.tensor([1, -1, 0, 1, -1, 0])
    memory = ClusterMemory()
    memory.reset(features, labels, source_centroids=unit_rows(3, 8, seed=1) * 2)
    assert len(memory.rows) == 5
    assert memory.label_space(labels).tolist() == [4, -1, 3, 4, -1, 3]
    torch.testing.assert_close(memory.rows[:3], unit_rows(3, 8, seed=1))


def test_a_cluster_without_images_is_refused_by_number():
    with pytest.raises(ValueError, match=r"clusters \[1\] of 0..2 have no image"):
        ClusterMemory().reset(unit_rows(3, 8), torch.tensor([0, 2, 2]))


def test_bad_values_name_their_config_key():
    with pytest.raises(ValueError, match=r"CC\.MEMORY\.CLUSTER\.MOMENTUM=1\.5"):
        ClusterMemory(momentum=1.5)
    with pytest.raises(ValueError, match=r"CC\.MEMORY\.CLUSTER\.UPDATE='some'"):
        ClusterMemory(update="some")
