"""SelectiveContrast and the memory it selects from: loops, planted faults, "accept all"."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import losses as oracle
from oracles.losses import make_batch, memory_by_name, unit_rows
from torch import Tensor

from fastreid_cc.losses.selective_contrast import SelectiveContrast, hardest_reliable
from fastreid_cc.memories import selective
from fastreid_cc.memories.hybrid import HybridMemory
from fastreid_cc.memories.selective import SelectiveMemory, reach_of

TARGETS = torch.tensor([0, 0, 1, 1, 2, -1, 2, 0, 3, 3, 1, 2])
LABELS = torch.arange(30) % 6 - 1


@given(seed=st.integers(1, 999), negatives=st.sampled_from([1, 4, 50]), k=st.sampled_from([2, 8]))
@settings(max_examples=12, deadline=None)
def test_value_and_gradient_equal_loops(seed: int, negatives: int, k: int) -> None:
    """Seed 0 draws the memory's rows: cosines would equal their reach, and rounding decide."""
    memory = memory_by_name("selective", reciprocal=k)
    x = (2 * unit_rows(12, 8, seed=seed)).requires_grad_()
    batch = make_batch(x, TARGETS, indices=torch.arange(12) * 7 % 30)
    found = SelectiveContrast(temperature=0.3, negatives=negatives)(batch, memory)
    rows, own = (memory.rows, memory.row_classes), batch.indices
    expected = oracle.scl(x, rows[0], TARGETS, rows[1], own, memory.reach, 0.3, negatives)
    gradient, wanted = (torch.autograd.grad(value, x)[0] for value in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-9)


@given(values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_the_positive_is_a_member_and_no_nearer_one_is_below_the_bar(values: list[float]) -> None:
    cosine = torch.tensor([[0.3, *values, -0.9]])
    member = torch.tensor([[False, *[True] * len(values), False]])
    at = int(hardest_reliable(cosine, member))
    inside = cosine[member]
    bar = inside.mean() - inside.std(correction=0)
    assert member[0, at] and cosine[0, at] >= bar - 1e-5
    assert not ((inside < cosine[0, at]) & (inside > bar + 1e-5)).any()


def near(direction: int, count: int, noise: float, seed: int) -> Tensor:
    return F.normalize(torch.eye(8)[direction] + noise * unit_rows(count, 8, seed=seed).float())


def filled(rows: Tensor, labels: Tensor, **options: Any) -> SelectiveMemory:
    memory = SelectiveMemory(**options)
    memory.reset(rows, labels)
    return memory


def test_a_wrongly_merged_image_is_no_positive() -> None:
    rows = torch.cat([near(0, 10, 0.3, 1), near(1, 1, 0.1, 2)])  # row 10 is of somebody else
    memory = filled(rows, torch.zeros(11, dtype=torch.int64))
    chosen = hardest_reliable(rows[:10] @ memory.rows.T, torch.ones(10, 11, dtype=torch.bool))
    assert 10 not in chosen.tolist()


def test_the_other_half_of_a_split_cluster_is_no_negative() -> None:
    """Its images are reciprocal neighbours; once they are not, the same images cost more."""
    one = near(0, 8, 0.3, 1)
    rows = torch.cat([one, near(1, 8, 0.3, 2)])
    labels = torch.tensor([0] * 4 + [1] * 4 + [2] * 8)
    batch = make_batch(rows[:4], labels[:4], indices=torch.arange(4))
    loss = SelectiveContrast()
    forgiven = loss(batch, filled(rows, labels, reciprocal=7))
    punished = loss(batch, filled(rows, labels, reciprocal=1))
    assert forgiven < 1e-3 < punished


def test_one_cluster_costs_nothing() -> None:
    rows = near(0, 6, 0.5, 1)
    memory = filled(rows, torch.zeros(6, dtype=torch.int64))
    x = rows.clone().requires_grad_()
    loss = SelectiveContrast()(make_batch(x, torch.zeros(6, dtype=torch.int64)), memory)
    assert loss == 0
    loss.backward()
    assert not x.grad.any()


def test_another_memory_is_refused() -> None:
    batch = make_batch(unit_rows(4, 8), torch.arange(4))
    with pytest.raises(ValueError, match=r"needs CC\.MEMORY\.NAME selective"):
        SelectiveContrast()(batch, memory_by_name("hybrid"))


# ---- the memory --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["all", "mean"])
@pytest.mark.parametrize("options", [{}, {"reinit": False, "outliers": "singleton"}])
def test_accepting_all_it_is_the_hybrid_memory_to_the_byte(
    rule: str, options: dict[str, Any]
) -> None:
    options = {"update": rule, "reinit": True, "outliers": "drop", **options}
    ours, host = SelectiveMemory(accept="all", **options), HybridMemory(**options)
    for epoch in range(2):
        for memory in (ours, host):
            memory.reset(unit_rows(30, 8, seed=epoch).float(), (LABELS + epoch).clamp(max=4))
        targets = host.label_space((LABELS + epoch).clamp(max=4))
        for seed in range(3):
            index = torch.randperm(30, generator=torch.Generator().manual_seed(seed))[:12]
            x = unit_rows(12, 8, seed=9 + seed).float()
            for memory in (ours, host):
                memory.update(make_batch(x, targets[index], indices=index))
    for name, value in host.get_state().items():
        mine = ours.get_state()[name]
        assert torch.equal(mine, value) if isinstance(value, Tensor) else mine == value


def test_an_image_is_written_if_its_class_is_the_nearest() -> None:
    memory = memory_by_name("selective", momentum=0.5)
    x, index = unit_rows(30, 8, seed=4), torch.arange(30)
    targets = memory.label_space(LABELS)
    before = memory.rows.clone()
    means = torch.stack([before[targets == c].mean(0) for c in range(5)])
    right = [int((means @ x[i]).argmax()) == int(targets[i]) for i in range(30)]
    memory.update(make_batch(x, targets, indices=index))
    assert (memory.rows != before).any(1).tolist() == right and 0 < sum(right) < 25
    assert memory.figures.take() == {"accepted": (sum(right), 25)}


def test_images_of_the_sources_are_always_written() -> None:
    memory = SelectiveMemory(momentum=0.5)
    memory.reset(unit_rows(30, 8), LABELS, source_centroids=unit_rows(3, 8, seed=2))
    before = memory.rows.clone()
    x = -before[:3]  # what they would look like least
    memory.update(make_batch(x, torch.arange(3), domains=torch.ones(3, dtype=torch.int64)))
    assert (memory.rows != before).any(1).nonzero()[:, 0].tolist() == [0, 1, 2]
    assert memory.figures.take() == {"accepted": (0.0, 0.0)}  # the share of the target's images


def test_with_planted_wrong_labels_they_are_accepted_less_often() -> None:
    """20 % of the images carry the label of another identity."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(300) % 10
    centers = unit_rows(10, 16, seed=1)
    x = F.normalize(centers[truth] + 0.8 * unit_rows(300, 16, seed=2))
    is_wrong = torch.rand(300, generator=generator) < 0.2
    moved = (truth + torch.randint(1, 10, (300,), generator=generator)) % 10
    labels = torch.where(is_wrong, moved, truth)
    memory = SelectiveMemory()
    memory.reset(x, labels)
    seen = F.normalize(x + 0.3 * unit_rows(300, 16, seed=3))  # as another augmentation
    accepted = memory.accepts(seen, make_batch(seen, labels))
    wrong, clean = accepted[is_wrong].double().mean(), accepted[~is_wrong].double().mean()
    assert 40 < is_wrong.sum() < 80 and wrong < 0.2 and clean > 0.8


def test_reach_equals_sorting_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(20, 8)
    expected = (rows @ rows.T - 9 * torch.eye(20)).sort(1, descending=True).values[:, 2]
    torch.testing.assert_close(reach_of(rows, 3), expected)
    monkeypatch.setattr(selective, "_ROWS", 6)
    torch.testing.assert_close(reach_of(rows, 3), expected)
    farthest = (rows @ rows.T).min(1).values
    torch.testing.assert_close(reach_of(rows, 99), farthest)  # k > N
    assert reach_of(rows[:1], 3).tolist() == [2.0] and reach_of(rows[:0], 3).shape == (0,)
