"""ImplicitExtension (ISE): loops, where support samples lie, limits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from oracles.losses import filled, make_batch, unit, unit_rows
from torch import Tensor

from fastreid_cc.losses.implicit_extension import ImplicitExtension
from fastreid_cc.losses.memory_contrast import MemoryContrast

TARGETS = torch.tensor([0, 0, 1, 1, 2, -1, 2, 0, 4])


def ise(x: Tensor, M: Tensor, y: Tensor, t: float, K: int, a: float, lam: float, tau: float):
    """Every image with every support sample, one by one."""
    f, own = unit(x), [i for i in range(len(y)) if y[i] >= 0]
    supports = {i: [] for i in own}
    for i in own:
        others = [c for c in range(len(M)) if c != y[i]]
        for n in sorted(others, key=lambda c: -float(f[i].detach() @ M[c]))[:K]:
            supports[i].append(unit(f[i] + a * (M[n] - M[y[i]])))
    samples = [(f[i], y[i]) for i in own] + [(s, y[i]) for i in own for s in supports[i]]
    loss = sum(F.cross_entropy((s @ M.T / t)[None], c[None]) for s, c in samples) / len(samples)
    kept = 0.0
    for i in own:
        z = {j: [f[i] @ s / tau for s in supports[j]] for j in own}
        p = min(v for j in own if y[j] == y[i] for v in z[j])
        n = [max(v for j in own if y[j] == c for v in z[j]) for c in {int(y[j]) for j in own}]
        n = [v for c, v in zip({int(y[j]) for j in own}, n, strict=True) if c != y[i]]
        kept -= torch.log(p.exp() / (p.exp() + sum(v.exp() for v in n)))
    return loss + lam * kept / len(own)


@pytest.mark.parametrize("neighbors", [1, 3])
def test_value_and_gradient_equal_loops(neighbors: int) -> None:
    memory = filled(unit_rows(5, 8), temperature=0.3)
    memory.set_epoch(4)
    loss = ImplicitExtension(neighbors=neighbors, degree=0.8, ramp_epochs=10, lp_scale=0.5)
    a = 0.8 * math.log(1 + (math.e - 1) * 4.5 / 10)
    assert loss.degree_at(4) == pytest.approx(a)
    x = (2 * unit_rows(9, 8, seed=3)).requires_grad_()
    found = loss(make_batch(x, TARGETS), memory)
    wanted = ise(x, memory.rows, TARGETS, 0.3, neighbors, a, 0.5, 0.6)
    gradients = [torch.autograd.grad(value, x)[0] for value in (found, wanted)]
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


def test_without_extension_it_is_the_memory_contrast() -> None:
    memory, x = filled(unit_rows(5, 8)), 2 * unit_rows(9, 8, seed=3)
    batch = make_batch(x, TARGETS)
    loss = ImplicitExtension(neighbors=2, degree=0.0, lp_scale=0.0)
    torch.testing.assert_close(loss(batch, memory), MemoryContrast()(batch, memory))


def test_a_support_sample_lies_towards_the_nearest_other_row() -> None:
    """And is harder than its image: the loss grows with the degree, the epochs with it."""
    memory, batch = (
        filled(torch.eye(3).double()),
        make_batch(torch.eye(3).double(), torch.arange(3)),
    )
    losses = []
    for epoch in (0, 5, 9, 50):
        memory.set_epoch(epoch)
        losses.append(float(ImplicitExtension(ramp_epochs=10, lp_scale=0.0)(batch, memory)))
    assert losses[0] < losses[1] < losses[2] < losses[3]
    f = torch.tensor([[0.8, 0.6, 0.0]]).double()
    (support,) = ImplicitExtension(degree=1.0, ramp_epochs=1)._supports(
        f, torch.tensor([0]), memory
    )
    torch.testing.assert_close(support, unit(f[0] + torch.tensor([-1.0, 1.0, 0.0]).double()))


def test_one_cluster_has_no_direction() -> None:
    memory, x = filled(unit_rows(1, 8)), unit_rows(4, 8, seed=1).requires_grad_()
    loss = ImplicitExtension(neighbors=2)(make_batch(x, torch.zeros(4, dtype=torch.int64)), memory)
    assert loss == 0 and not torch.autograd.grad(loss, x)[0].any()
