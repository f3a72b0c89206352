"""NeighborConsistency (NCPLR): loops, the label it makes, limits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from oracles.losses import filled, make_batch, unit, unit_rows
from torch import Tensor

from fastreid_cc.losses.memory_contrast import MemoryContrast
from fastreid_cc.losses.neighbor_consistency import NeighborConsistency, neighbor_weights

TARGETS = torch.tensor([0, 0, 1, 1, 2, -1, 2, 0, 4])


def ncplr(x: Tensor, M: Tensor, z_t: Tensor, y: Tensor, t, alpha, k, T, lam) -> Tensor:
    """Image by image, in the paper's words."""
    f, own, loss = unit(x), [i for i in range(len(y)) if y[i] >= 0], 0.0
    p = {i: torch.softmax(f[i] @ M.T / t, 0) for i in own}
    taught = {i: torch.softmax(z_t[i], 0) for i in own}
    for i in own:
        others = sorted((j for j in own if j != i), key=lambda j: -float(f[i] @ f[j]))[:k]
        near = [i, *others]
        w = torch.softmax(torch.stack([f[i] @ f[j] / T for j in near]), 0).detach()
        ensemble = sum(w[n] * (p[j] + taught[j]) / 2 for n, j in enumerate(near)).detach()
        refined = (1 - alpha) * ensemble
        refined[y[i]] += alpha
        mean = sum(p[j] for j in near) / len(near)
        loss = loss - (refined * p[i].log()).sum()
        loss = loss + lam * (mean * (mean.log() - taught[i].log())).sum()
    return loss / len(own)


@pytest.mark.parametrize("neighbors", [0, 3, 50])
def test_value_and_gradient_equal_loops(neighbors: int) -> None:
    memory = filled(unit_rows(5, 8), temperature=0.3)
    memory.set_epoch(4)
    loss = NeighborConsistency(
        alpha=0.2, neighbors=neighbors, temperature=0.4, consistency_scale=2.0, ramp_epochs=10
    )
    ramp = math.exp(-5 * 0.25)
    assert loss.ramp_at(4) == pytest.approx(ramp) and loss.ramp_at(20) == 1
    x, z_t = (2 * unit_rows(9, 8, seed=3)).requires_grad_(), 4 * unit_rows(9, 5, seed=5)
    found = loss(replace(make_batch(x, TARGETS), teacher_logits=z_t), memory)
    wanted = ncplr(x, memory.rows, z_t, TARGETS, 0.3, 0.2, neighbors, 0.4, 2 * ramp)
    gradients = [torch.autograd.grad(value, x)[0] for value in (found, wanted)]
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


def test_with_the_pseudo_label_alone_it_is_the_memory_contrast() -> None:
    memory, x = filled(unit_rows(5, 8)), 2 * unit_rows(9, 8, seed=3)
    batch = replace(make_batch(x, TARGETS), teacher_logits=unit_rows(9, 5))
    loss = NeighborConsistency(alpha=1.0, consistency_scale=0.0)(batch, memory)
    torch.testing.assert_close(loss, MemoryContrast()(batch, memory))


def test_a_wrong_label_among_agreeing_neighbours_costs_less() -> None:
    """Six images of one person, one of them labelled as somebody else."""
    rows = torch.eye(3).double()
    f = unit(rows[:1] + 0.05 * unit_rows(6, 3, seed=1))
    memory = filled(rows, temperature=0.1)
    right, wrong = torch.zeros(6, dtype=torch.int64), torch.tensor([1, 0, 0, 0, 0, 0])
    logits = memory.logits(f, make_batch(f, right))

    def added(alpha: float) -> float:
        """What the wrong label adds."""
        loss = NeighborConsistency(alpha=alpha, consistency_scale=0.0)
        costs = [
            loss(replace(make_batch(f, y), teacher_logits=logits), memory) for y in (wrong, right)
        ]
        return float(costs[0] - costs[1])

    assert added(0.1) == pytest.approx(0.1 * added(1.0)) and added(1.0) > 1


def test_weights_are_of_the_nearest_and_the_image_itself() -> None:
    f, valid = unit_rows(6, 8), torch.tensor([True, True, True, False, True, True])
    weights, near = neighbor_weights(f, valid, 2, 0.5)
    torch.testing.assert_close(weights.sum(1), valid.double())
    assert (near.sum(1) == torch.where(valid, 3, 0)).all() and near.diagonal()[valid].all()
    assert not weights[:, 3].any() and (weights.diagonal()[valid] == weights.amax(1)[valid]).all()


def test_sharp_softmaxes_stay_finite() -> None:
    memory, x = filled(unit_rows(5, 8).float(), temperature=0.001), unit_rows(9, 8).float()
    x.requires_grad_()
    batch = replace(make_batch(x, TARGETS), teacher_logits=1000 * unit_rows(9, 5).float())
    loss = NeighborConsistency()(batch, memory)
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, x)[0]).all()
