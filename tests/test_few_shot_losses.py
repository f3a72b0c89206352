"""AMDIM and the prototypical loss: loops in the papers' symbols, closed forms, properties."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import losses as oracle
from oracles.losses import amdim, amdim_term, in_views, make_batch, prototypes, unit_rows

from fastreid_cc.losses.prototypes import Prototypes
from fastreid_cc.structures import Batch

TARGETS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, -1, -1])
VIEWS = torch.arange(10) % 2


def both(function, x):
    x = x.detach().clone().requires_grad_()
    value = function(x)
    value.backward()
    return value.detach(), x.grad


# ---- AMDIM -------------------------------------------------------------------------------------


def in_loops(loss, x, targets=TARGETS, views=VIEWS):
    """The three terms of the batch that `in_views` makes of x."""
    batch = in_views(make_batch(x, targets), views)
    length = math.sqrt(x.shape[1])

    def vectors(head, pooled):
        u = pooled.flatten(2).transpose(1, 2)
        straight, hidden, out = (m.weight.double() for m in head.children())
        v = u @ straight.T + (u @ hidden.T).clamp(min=0) @ out.T
        return length * v / v.norm(dim=2, keepdim=True)

    whole = length * (x / x.norm(dim=1, keepdim=True))[:, None]
    fine = vectors(loss.fine_head, batch.fine_map)
    coarse = vectors(loss.coarse_head, batch.coarse_map.mean(3, keepdim=True))
    pairs = ((whole, coarse), (whole, fine), (coarse, coarse))
    return sum(amdim_term(a, b, targets, views, loss.clip, loss.penalty) for a, b in pairs)


@pytest.mark.parametrize(
    ("clip", "penalty", "views"), [(20.0, 0.05, VIEWS), (1.5, 0.3, torch.arange(10) // 5 % 2)]
)
def test_amdim_equals_the_loops_in_value_and_gradient(clip, penalty, views):
    loss, x = amdim(clip=clip, penalty=penalty), 2 * unit_rows(10, 8, seed=1)
    targets = TARGETS if views is VIEWS else TARGETS[torch.tensor([0, 2, 4, 6, 8, 1, 3, 5, 7, 9])]
    ours = both(lambda f: loss(in_views(make_batch(f, targets), views)), x)
    torch.testing.assert_close(
        ours, both(lambda f: in_loops(loss, f, targets, views), x), rtol=1e-9, atol=1e-12
    )
    weights = [torch.autograd.grad(make(), list(loss.parameters())) for make in (
        lambda: loss(in_views(make_batch(x, targets), views)),
        lambda: in_loops(loss, x, targets, views),
    )]  # fmt: skip
    assert len(weights[0]) == 6 and all(g.any() for g in weights[0])
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-7)  # of float32 weights


@pytest.mark.parametrize("images", [1, 2, 7])
def test_at_scores_of_zero_a_term_is_the_logarithm_of_what_there_is_to_choose_from(images):
    """log(1 + (B - 1) L): the other locations of the own image are left out."""
    loss = amdim(fine_rows=4, fine_columns=6)
    targets, views = torch.arange(images).repeat_interleave(2), torch.arange(2 * images) % 2
    maps = {name: torch.zeros(2 * images, 8, 4, 6) for name in ("fine_map", "coarse_map")}
    found = loss(Batch.of(torch.zeros(2 * images, 8), targets, views=views, **maps).map(
        lambda v: v.double() if v.is_floating_point() else v
    ))  # fmt: skip
    others = images - 1
    assert float(found.detach()) == pytest.approx(
        2 * math.log(1 + others * 6) + math.log(1 + others * 24), abs=1e-12
    )


def test_amdim_falls_on_two_images_until_their_views_are_told_apart():
    torch.manual_seed(0)
    loss, x = amdim(), torch.nn.Parameter(unit_rows(4, 8, seed=3))
    optimizer = torch.optim.Adam([x, *loss.parameters()], lr=0.02)
    targets, views = TARGETS[:4], VIEWS[:4]
    seen = []
    for _ in range(150):
        value = loss(in_views(make_batch(x, targets), views))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(float(value.detach()))
    assert seen[-1] < 0.6 * seen[0]
    f = torch.nn.functional.normalize(x.detach())
    assert (f @ f.T)[0].argsort(descending=True)[1] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"views": None}, "CC.WARMUP.LOSSES, with CC.WARMUP.VIEWS 2"),
        ({"fine_map": None}, "the batch holds none"),
        ({"fine_map": torch.zeros(10, 5, 2, 2)}, "FINE_CHANNELS=8 must be layer2's size, 5"),
        ({"coarse_map": torch.zeros(10, 9, 2, 2)}, "COARSE_CHANNELS=8 must be layer4's size, 9"),
        ({"features": torch.zeros(10, 6)}, "FEATURE_SIZE=8 must be the features' size, 6"),
    ],
)
def test_what_does_not_fit_is_named_by_its_key(change, said):
    batch = in_views(make_batch(unit_rows(10, 8), TARGETS), VIEWS)
    with pytest.raises(ValueError, match=said):
        amdim()(replace(batch, **change))


# ---- prototypes --------------------------------------------------------------------------------

LABELS = torch.tensor([0, 0, 1, 2, -1, 1, 2, 0, 3, 1])


@pytest.mark.parametrize("shots", [0, 1, 2])
def test_prototypes_equal_the_loops_in_value_and_gradient(shots):
    x, index = 2 * unit_rows(10, 6, seed=1), torch.tensor([5, 2, 9, 1, 0, 3, 7, 8, 4, 6])
    found = both(
        lambda f: Prototypes(temperature=0.2, shots=shots)(
            make_batch(f, LABELS, None, index)
        ),
        x,
    )  # fmt: skip
    expected = both(lambda f: prototypes(f, LABELS, index, 0.2, shots), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_an_image_that_comes_twice_is_on_one_side_of_an_episode():
    x, index = unit_rows(6, 4, seed=2), torch.tensor([3, 3, 8, 1, 5, 5])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    order = torch.tensor([4, 2, 1, 0, 5, 3])
    loss = Prototypes(shots=1)
    found = loss(make_batch(x, labels, None, index))
    torch.testing.assert_close(found, prototypes(x, labels, index, 0.1, 1))
    torch.testing.assert_close(loss(make_batch(x[order], labels[order], None, index[order])), found)


@given(
    labels=st.lists(st.integers(-1, 4), min_size=2, max_size=12),
    seed=st.integers(0, 99),
    shots=st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_prototypes_are_a_cross_entropy_that_rotations_leave_alone(labels, seed, shots):
    y, x = torch.tensor(labels), unit_rows(len(labels), 5, seed=seed)
    index, loss = torch.arange(len(labels)), Prototypes(temperature=0.5, shots=shots)
    value = loss(make_batch(x, y, None, index))
    assert value >= 0
    turn = torch.linalg.qr(unit_rows(5, 5, seed=seed + 1))[0]
    torch.testing.assert_close(loss(make_batch(x @ turn, y, None, index)), value)
    blunt = Prototypes(temperature=1e12, shots=shots)(make_batch(x, y, None, index))
    # every identity with support is as likely as any other
    if blunt > 0:
        classes = len({c for c in labels if c >= 0})
        assert float(blunt) == pytest.approx(math.log(classes), abs=1e-9)


def test_separated_identities_cost_nothing_and_both_losses_need_no_memory():
    x = torch.eye(4).double().repeat_interleave(3, 0)
    y = torch.arange(4).repeat_interleave(3)
    assert float(Prototypes()(make_batch(x, y, None, torch.arange(12)))) < 1e-7
    assert not oracle.amdim().needs_memory and not Prototypes.needs_memory
