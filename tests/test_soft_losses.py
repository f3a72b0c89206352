"""Soft contrast and soft triplet against loops in the paper's symbols; limits."""

import pytest
import torch
from oracles import losses as oracle
from oracles.losses import filled, make_batch, teach, unit_rows

from fastreid_cc.losses.soft_contrast import SoftContrast
from fastreid_cc.losses.soft_triplet import SoftTriplet

TARGETS = torch.tensor([0, 0, 1, 2, -1, 1, 2, 0])


def both(function, x):
    x = x.detach().clone().requires_grad_()
    value = function(x)
    value.backward()
    return value.detach(), x.grad


def test_soft_contrast_equals_the_oracle():
    memory, x = filled(unit_rows(5, 6), temperature=0.3), 2 * unit_rows(8, 6, seed=1)
    z = teach(make_batch(x, TARGETS), memory).teacher_logits
    expected = both(lambda f: oracle.soft_contrast(f, memory.rows, TARGETS, 0.3, z), x)
    found = both(lambda f: SoftContrast()(teach(make_batch(f, TARGETS), memory), memory), x)
    torch.testing.assert_close(found, expected)


def test_a_certain_teacher_is_a_hard_label():
    memory, x = filled(unit_rows(5, 6)), unit_rows(8, 6, seed=1)
    batch = make_batch(x, TARGETS)
    logits = 1e4 * torch.nn.functional.one_hot(TARGETS.clamp(min=0), 5).double()
    soft = SoftContrast()(oracle.replace(batch, teacher_logits=logits), memory)
    hard = oracle.memory_contrast(x, memory.rows, TARGETS, memory.temperature)
    torch.testing.assert_close(soft, hard)


def test_the_loss_is_least_when_network_and_teacher_agree_and_then_has_no_gradient():
    memory, x = filled(unit_rows(5, 6), temperature=0.5), unit_rows(8, 6, seed=1)
    batch = make_batch(x, TARGETS)
    own = oracle.replace(batch, teacher_logits=memory.logits(x, batch))
    _, grad = both(lambda f: SoftContrast()(oracle.replace(own, features=f), memory), x)
    torch.testing.assert_close(grad, torch.zeros_like(grad), atol=1e-12, rtol=0)


def test_a_blunt_teacher_asks_for_equal_shares():
    memory, x = filled(unit_rows(5, 6)), unit_rows(8, 6, seed=1)
    batch = teach(make_batch(x, TARGETS), memory)
    logits = memory.logits(x, batch)[TARGETS >= 0]
    expected = -logits.log_softmax(1).mean()
    torch.testing.assert_close(SoftContrast(temperature=1e9)(batch, memory), expected)
    with pytest.raises(ValueError, match=r"SoftContrast\.TEMPERATURE=0"):
        SoftContrast(temperature=0.0)


def test_soft_triplet_equals_the_oracle():
    x = 2 * unit_rows(8, 6, seed=1)
    taught = teach(make_batch(x, TARGETS), None).teacher_features + 0.1 * unit_rows(8, 6, seed=5)

    def ours(f):
        return SoftTriplet()(oracle.replace(make_batch(f, TARGETS), teacher_features=taught))

    expected = both(lambda f: oracle.soft_triplet(f, taught, TARGETS), x)
    torch.testing.assert_close(both(ours, x), expected, rtol=1e-6, atol=1e-9)


def test_soft_triplet_of_one_identity_costs_nothing():
    x = unit_rows(4, 6).requires_grad_()
    batch = oracle.replace(
        make_batch(x, torch.zeros(4, dtype=torch.int64)), teacher_features=x.detach()
    )
    loss = SoftTriplet()(batch)
    loss.backward()
    assert loss == 0 and not x.grad.any()
