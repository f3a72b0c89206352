"""The loss of mined triplets: the formula in loops, and who is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fastreid_cc.losses.mined_triplet import MinedTriplet
from fastreid_cc.structures import Batch


def by_loops(x: Tensor, targets: Tensor, roles: Tensor, margin: float) -> Tensor:
    """The mean over whole triplets of 1/2 [m + |q-p|^2 - |q-n|^2]_+, triplet by triplet."""
    place = {int(role): i for i, role in enumerate(roles) if targets[i] >= 0}
    f, terms = [row / row.norm() for row in x], []
    for t in range(int(roles.max()) // 3 + 1):
        if all(3 * t + r in place for r in range(3)):
            q, p, n = (f[place[3 * t + r]] for r in range(3))
            gap = margin + ((q - p) ** 2).sum() - ((q - n) ** 2).sum()
            terms.append(gap / 2 if gap > 0 else gap * 0)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.7])
def test_value_and_gradient_are_those_of_the_formula(margin: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        order = torch.from_numpy(rng.permutation(18))
        x = torch.from_numpy(rng.normal(size=(18, 7))).requires_grad_()
        roles = torch.arange(18)[order] + 30  # numbers of triplets need not begin at 0
        targets = torch.from_numpy(rng.integers(-1, 12, 18)).clamp(-1, 0)
        roles[3] = -1  # of no triplet
        found = MinedTriplet(margin=margin)(Batch.of(x, targets, roles=roles))
        wanted = by_loops(x, targets, roles, margin)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
        mine, theirs = (torch.autograd.grad(value, x)[0] for value in (found, wanted))
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-13)
        assert mine.any()


def test_a_triplet_with_an_ignored_image_is_left_out() -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    roles = torch.arange(6)
    for ignored in (0, 1, 2):
        targets = torch.zeros(6, dtype=torch.int64)
        targets[ignored] = -1
        loss = MinedTriplet(margin=4.0)(Batch.of(x, targets, roles=roles))
        alone = MinedTriplet(margin=4.0)(Batch.of(x[3:], targets[3:], roles=roles[3:]))
        torch.testing.assert_close(loss, alone)
        assert not torch.autograd.grad(loss, x)[0][:3].any()


def test_the_closed_form_of_a_right_angle() -> None:
    """q = p, n orthogonal: max(0, m + 0 - 2) / 2; exchanged: (m + 2) / 2."""
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    batch = Batch.of(x, torch.tensor([0, 0, 1]), roles=torch.tensor([0, 1, 2]))
    assert MinedTriplet(margin=2.5)(batch) == 0.25
    assert MinedTriplet()(batch) == 0
    batch = Batch.of(x, torch.tensor([0, 0, 1]), roles=torch.tensor([0, 2, 1]))
    assert MinedTriplet()(batch) == pytest.approx(1.05)
