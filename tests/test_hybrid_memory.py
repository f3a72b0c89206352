from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import losses as oracle
from oracles.losses import filled, make_batch, unit_rows

from fastreid_cc.losses.memory_contrast import MemoryContrast
from fastreid_cc.memories import updates
from fastreid_cc.memories.hybrid import HybridMemory

PARITY = Path(__file__).parent / "parity" / "memories"
CASES = ("small", "gaps", "other_hp")


def load(name):
    return {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(PARITY / name).items()}


def without_gaps(labels):
    """Only equality of labels matters: the recordings have unused numbers, ours may not."""
    return torch.unique(labels, return_inverse=True)[1]


def hybrid(rows, labels, num_sources=0, **kwargs):
    memory = HybridMemory(**kwargs)
    labels = without_gaps(labels)[num_sources:] - num_sources
    memory.reset(rows[num_sources:], labels, source_centroids=rows[:num_sources])
    return memory


def batch_for(memory, x, index):
    """A batch that names memory rows: row r is source class r or image r - S."""
    return make_batch(x, memory.row_classes[index], indices=(index - memory.num_sources).clamp(0))


def step(memory, x, index, floor=1e-6):
    x = x.clone().requires_grad_()
    batch = batch_for(memory, x, index)
    loss = MemoryContrast(probability_floor=floor)(batch, memory)
    loss.backward()
    return loss.detach(), x.grad, batch


@pytest.mark.parametrize("path", sorted(PARITY.glob("hm_*.npz")), ids=lambda p: p.stem)
def test_three_steps_equal_the_recordings_of_spcl_and_openunreid(path):
    data = load(path.name)
    memory = hybrid(
        data["memory0"],
        data["labels"],
        temperature=float(data["temp"]),
        momentum=float(data["momentum"]),
    )
    for s in ("s0_", "s1_", "s2_"):
        loss, grad, batch = step(memory, data[s + "inputs"], data[s + "indexes"])
        if path.stem.startswith("hm_spcl"):  # SpCL takes unit features: gradient in the sphere
            f, expected = data[s + "inputs"], data[s + "grad_inputs"]
            data[s + "grad_inputs"] = expected - f * (f * expected).sum(1, keepdim=True)
        torch.testing.assert_close(loss, data[s + "loss"], atol=2e-6, rtol=1e-6)
        torch.testing.assert_close(grad, data[s + "grad_inputs"], atol=2e-6, rtol=1e-6)
        memory.update(batch)
        torch.testing.assert_close(memory.rows, data[s + "memory_after"], atol=2e-6, rtol=0)


def unit_gradient(memory, f, index, floor):
    """Gradient at unit features, not through the normalisation, as SpCL records it."""
    f = f.clone().requires_grad_()
    batch = batch_for(memory, f, index)
    from fastreid_cc.losses.memory_contrast import cross_entropy

    cross_entropy(memory.logits(f, batch), batch.targets, floor=floor).mean().backward()
    return f.grad


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("suffix", ["", "_paper"])
def test_joint_source_and_target_equals_the_recording(case, suffix):
    data = {k[len(case) + 2 :]: v for k, v in load("spcl_uda_memory.npz").items() if case in k}
    floor = 0.0 if suffix else 1e-6
    memory = hybrid(
        data["features_before"],
        data["labels"],
        int(data["n_source_classes"]),
        temperature=float(data["temp"]),
        momentum=float(data["momentum"]),
    )
    torch.testing.assert_close(
        memory.class_sums / memory.class_sizes[:, None], data["prototypes"], rtol=1e-9, atol=1e-12
    )
    batches = []
    for half in "st":
        index = data[f"index_{half}"]
        loss, _, batch = step(memory, data[f"f_{half}"], index, floor)
        torch.testing.assert_close(loss, data[f"loss_{half}{suffix}"], rtol=1e-9, atol=1e-13)
        grad = unit_gradient(memory, data[f"f_{half}"], index, floor)
        torch.testing.assert_close(grad, data[f"grad_{half}{suffix}"], rtol=1e-9, atol=1e-12)
        batches.append(batch)
    for batch in reversed(batches):
        memory.update(batch)
    torch.testing.assert_close(memory.rows, data["features_after"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("order", ["oun_source_first", "oun_target_first"])
def test_one_call_on_both_halves_equals_openunreid(case, order):
    prefix = f"{case}__{order}__"
    data = load("spcl_uda_memory.npz")
    rows, labels = data[prefix + "features_before"], data[prefix + "labels"]
    index, S = data[prefix + "index"], int(data[f"{case}__n_source_classes"])
    if order == "oun_target_first":  # their blocks the other way round; ours start with the source
        n = len(rows) - S
        rows, labels = rows.roll(S, 0), labels.roll(S)
        labels = torch.cat([torch.arange(S), labels[S:] + S])
        index = (index + S) % (n + S)
    memory = hybrid(
        rows,
        labels,
        S,
        temperature=float(data[f"{case}__temp"]),
        momentum=float(data[f"{case}__momentum"]),
    )
    loss, grad, batch = step(memory, data[prefix + "raw"], index)
    torch.testing.assert_close(loss, data[prefix + "loss"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(grad, data[prefix + "grad_raw"], rtol=1e-9, atol=1e-12)
    memory.update(batch)
    after = data[prefix + "features_after"]
    after = after.roll(S, 0) if order == "oun_target_first" else after
    torch.testing.assert_close(memory.rows, after, rtol=1e-9, atol=1e-12)


def test_positives_far_below_the_floor_equal_the_recording():
    data = load("spcl_uda_memory.npz")
    memory = hybrid(
        data["floor__features_before"],
        data["floor__labels"],
        0,
        temperature=float(data["floor__temp"]),
    )
    for suffix, floor in (("", 1e-6), ("_paper", 0.0)):
        loss, _, _ = step(memory, data["floor__f"], data["floor__index"], floor)
        torch.testing.assert_close(loss, data["floor__loss" + suffix], rtol=1e-9, atol=1e-12)
        grad = unit_gradient(memory, data["floor__f"], data["floor__index"], floor)
        torch.testing.assert_close(grad, data["floor__grad" + suffix], rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("case", CASES)
def test_mean_update_equals_the_variant_of_the_paper(case):
    data = {k[len(case) + 2 :]: v for k, v in load("spcl_uda_memory.npz").items() if case in k}
    S = int(data["n_source_classes"])
    memory = hybrid(
        data["features_before"],
        data["labels"],
        S,
        momentum=float(data["momentum"]),
        update="mean",
    )
    memory.update(batch_for(memory, data["f_s"], data["index_s"]))
    torch.testing.assert_close(
        memory.rows[:S], data["source_centroids_after_mean_update"], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("padded", [False, True])
def test_class_sums_follow_the_rows_over_many_steps(padded, monkeypatch):
    monkeypatch.setattr(updates, "is_padded", lambda index: padded)  # True: the form for CUDA
    labels = torch.arange(40) % 7 - 1
    memory = HybridMemory()
    memory.reset(unit_rows(40, 8), labels, source_centroids=unit_rows(3, 8, seed=9))
    targets = memory.label_space(labels)
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        index = torch.randint(40, (16,), generator=generator)
        chosen = targets[index]
        chosen[:4] = torch.tensor([0, 2, 2, 1])  # source images; their indices mean nothing
        chosen[5] = -1
        chosen = chosen if seed else torch.full_like(chosen, -1)
        memory.update(make_batch(unit_rows(16, 8, seed=seed), chosen, indices=index))
    sums = torch.stack([memory.rows[memory.row_classes == c].sum(0) for c in range(len(targets))])
    torch.testing.assert_close(
        memory.class_sums, sums[: len(memory.class_sums)], atol=1e-12, rtol=0
    )


def test_without_outliers_and_with_equal_sizes_it_is_cluster_contrast_on_plain_means():
    labels = torch.arange(24) % 6
    memory = HybridMemory()
    memory.reset(unit_rows(24, 8), labels)
    cluster = filled(unit_rows(6, 8, seed=4))
    cluster.rows = memory.class_sums / 4
    x, other = (unit_rows(9, 8, seed=5).requires_grad_() for _ in range(2))
    targets = labels[:9]
    loss = MemoryContrast()(make_batch(x, targets), memory)
    expected = MemoryContrast()(make_batch(other, targets), cluster)
    (loss + expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, other.grad)


def test_with_every_image_un_clustered_it_is_an_instance_memory():
    from fastreid_cc.memories.instance import InstanceMemory

    features, labels = unit_rows(10, 8), torch.full((10,), -1)
    hybrid_memory = HybridMemory(momentum=0.3)
    instance = InstanceMemory(init="features", momentum=0.3, momentum_growth=0.0)
    index = torch.tensor([3, 1, 3, 7])
    for memory in (hybrid_memory, instance):
        memory.reset(features, labels)
        targets = memory.label_space(labels)
        batch = make_batch(unit_rows(4, 8, seed=1), targets[index], indices=index)
        memory.update(batch)
    assert torch.equal(hybrid_memory.rows, instance.rows)
    torch.testing.assert_close(
        MemoryContrast()(batch, hybrid_memory), MemoryContrast()(batch, instance)
    )


def test_the_loss_equals_the_loop():
    labels = torch.tensor([0, 1, -1, 0, 1, 1, -1])
    memory = HybridMemory()
    memory.reset(unit_rows(7, 8), labels, source_centroids=unit_rows(2, 8, seed=1))
    x, slow = (unit_rows(5, 8, seed=2) * 3 for _ in range(2))
    x, slow = x.requires_grad_(), slow.requires_grad_()
    y = torch.tensor([1, 2, 5, 3, 4])
    loss = MemoryContrast(probability_floor=1e-6)(make_batch(x, y), memory)
    expected = oracle.hybrid_contrast(slow, memory.rows, memory.row_classes, y, 0.05, 1e-6)
    (loss + expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, slow.grad)


def test_later_resets_keep_the_rows_unless_told_and_hand_them_out_for_clustering():
    labels = torch.arange(6) % 2
    for reinit in (False, True):
        memory = HybridMemory(reinit=reinit)
        memory.reset(unit_rows(6, 4), labels)
        memory.reset(F.normalize(unit_rows(6, 4, seed=1)), torch.zeros(6, dtype=torch.int64))
        assert torch.equal(memory.rows, unit_rows(6, 4, seed=1 if reinit else 0))
        assert len(memory.class_sums) == 1
        rows = memory.clustering_features()
        assert rows is None if reinit else torch.equal(rows, memory.rows)


def test_dropped_outliers_are_in_no_softmax_and_keep_their_rows():
    """As a memory of the clustered images alone, and their rows are not touched."""
    labels, f = torch.tensor([0, -1, 1, 0, -1, 1]), unit_rows(6, 5)
    kept = labels >= 0
    memory, alone = HybridMemory(outliers="drop"), HybridMemory()
    memory.reset(f, labels, source_centroids=unit_rows(2, 5, seed=1))
    alone.reset(f[kept], labels[kept], source_centroids=unit_rows(2, 5, seed=1))
    assert memory.label_space(labels).tolist() == [2, -1, 3, 2, -1, 3]
    x, targets, place = unit_rows(4, 5, seed=3), torch.tensor([2, 3, -1, 2]), kept.cumsum(0) - 1
    indices = torch.tensor([0, 2, 1, 3])
    for _ in range(2):
        batch = make_batch(x, targets, indices=indices)
        torch.testing.assert_close(memory.logits(x, batch), alone.logits(x, batch))
        memory.update(batch)
        alone.update(make_batch(x, targets, indices=place[indices]))
    torch.testing.assert_close(memory.rows[2:][kept], alone.rows[2:])
    assert torch.equal(memory.rows[2:][~kept], f[~kept])
