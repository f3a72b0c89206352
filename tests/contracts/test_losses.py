"""What every loss keeps; see `Loss`."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastreid_cc.registry import LOSSES, MEMORIES
from fastreid_cc.structures import Batch

from .parts import (
    DEVICES,
    MEMORY_OF,
    Case,
    as_bytes,
    cases,
    knn_graph,
    make_batch,
    repeated,
    unit_rows,
)

FAMILIES = (LOSSES,)
TARGETS = torch.tensor([0, 0, 1, 1, 2, -1, 2, 0, 3, 3, 1, 2])
CAMERAS = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 2, 1])
FEATURES = 2 * unit_rows(12, 8, seed=1)
#: Losses whose gradient is not that of the value, since something in it is held constant.
HELD_CONSTANT = {
    "AdaSP": "alpha, the share of the hard positive",
    "AverageK:two_head": "the bias of the second head",
    "AverageK:soft_positives": "the bias of the second head",
    "AverageK:rescue": "the bias of the second head",
    "MpRL": "the graded label",
    "NeighborConsistency": "the refined label",
    "PairwiseCircle": "how far a pair is from its optimum",
}
#: Losses on the features as they are; the others scale them to unit length.
NOT_ON_THE_SPHERE = ("BatchHardTriplet", "SoftTriplet")
BUILT: dict[str, tuple[Any, dict[int, Any]]] = {}


def loss_of(case: Case) -> Any:
    """The loss, built once: its network, if it has one, is the same in every test."""
    if case.id not in BUILT:
        BUILT[case.id] = case.build(), {}
    return BUILT[case.id][0]


def memory_of(case: Case, sources: int = 0) -> Any:
    """The memory it is made for, of 30 images in 5 clusters, 5 outliers, 3 cameras; epoch 5."""
    loss_of(case)
    kept = BUILT[case.id][1]
    if sources not in kept:
        kept[sources] = a_memory(
            MEMORY_OF.get(case.id, MEMORY_OF.get(case.name, "cluster")), sources
        )
    return kept[sources]


def a_memory(name: str, sources: int) -> Any:
    memory = MEMORIES.get(name)(**{"init": "features"} if name == "instance" else {})
    centroids = unit_rows(sources, 8, seed=12) if sources else None
    memory.reset(
        unit_rows(30, 8),
        torch.arange(30) % 6 - 1,
        cameras=torch.arange(30) % 7 % 3,
        source_centroids=centroids,
    )
    memory.set_epoch(5)
    return memory


def batch_of(
    case: Case,
    x: Tensor = FEATURES,
    targets: Tensor = TARGETS,
    cameras: Tensor = CAMERAS,
    sources: int = 0,
) -> Batch:
    """A batch of the target, with what a teacher, views and a backbone would add.

    The teacher has one fixed feature per target; the camera stands for the view.
    """
    shifted = torch.where(targets < 0, targets, targets + sources)
    device = x.device
    batch = make_batch(x, shifted, cameras).map(lambda value: value.to(device))
    memory = memory_of(case, sources)
    taught = (3 * unit_rows(8, 8, seed=9))[targets]
    logits = memory.logits(torch.nn.functional.normalize(taught), make_batch(taught, shifted))
    batch = replace(batch, teacher_features=taught.to(device), teacher_logits=logits.to(device))
    with torch.autocast(device.type, enabled=False):  # views and maps, for losses that see them
        u = torch.nn.functional.normalize(x)
        fine = torch.stack([u, u.roll(1, 1), u.roll(2, 1), u.flip(1)], 2).view(*x.shape, 2, 2)
    batch = replace(batch, views=batch.cameras, fine_map=fine, coarse_map=fine[:, :, :1, :1])
    return replace(batch, roles=roles_of(x)) if loss_of(case).needs_roles else batch


def roles_of(x: Tensor) -> Tensor:
    """A role in a triplet for each image, which it keeps in any order of the batch."""
    first = torch.nn.functional.normalize(x.detach().double())[:, 0]
    return first.argsort(stable=True).argsort(stable=True)


def loss_and_gradient(case: Case, x: Tensor = FEATURES, *rest: Any, **more: Any) -> Any:
    x = x.detach().clone().requires_grad_()
    memory = memory_of(case, more.get("sources", 0))
    loss = loss_of(case)(batch_of(case, x, *rest, **more), memory)
    (gradient,) = torch.autograd.grad(loss, x, allow_unused=True)
    return loss.detach(), torch.zeros_like(x) if gradient is None else gradient


# ---- value and gradient ------------------------------------------------------------------------


@pytest.mark.parametrize("sources", [0, 3])
def test_the_gradient_is_that_of_the_value(case: Case, sources: int) -> None:
    """By differences along every feature, in float64; random features lie on no kink."""
    if case.id in HELD_CONSTANT:
        pytest.skip(f"held constant: {HELD_CONSTANT[case.id]}")
    memory, loss = memory_of(case, sources), loss_of(case)
    batch = batch_of(case, sources=sources)
    assert torch.autograd.gradcheck(
        lambda x: loss(replace(batch, features=x), memory),
        FEATURES.clone().requires_grad_(),
        fast_mode=True,
    )


def test_a_small_step_against_the_gradient_lowers_the_loss(case: Case) -> None:
    loss, gradient = loss_and_gradient(case)
    assert loss.ndim == 0 and gradient.any()
    step = 1e-4 * gradient / gradient.norm()
    after, _ = loss_and_gradient(case, FEATURES - step)
    before, _ = loss_and_gradient(case, FEATURES + step)
    assert after < loss < before


@given(order=st.permutations(range(12)))
@settings(max_examples=4, deadline=None)
def test_permuting_the_batch_permutes_the_gradient_only(case: Case, order: list[int]) -> None:
    loss, gradient = loss_and_gradient(case)
    moved = FEATURES[order], TARGETS[order], CAMERAS[order]
    other, other_gradient = loss_and_gradient(case, *moved)
    torch.testing.assert_close(other, loss, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(other_gradient, gradient[order], rtol=1e-9, atol=1e-11)


def test_the_names_of_the_clusters_do_not_matter_without_a_memory(case: Case) -> None:
    if loss_of(case).needs_memory or loss_of(case).needs_teacher:
        pytest.skip("a target is a row of the memory")
    renamed = torch.tensor([7, 2, 5, 0, -1])[TARGETS]
    torch.testing.assert_close(
        loss_and_gradient(case, FEATURES, renamed)[0], loss_and_gradient(case)[0]
    )


@pytest.mark.parametrize("sources", [0, 3])
def test_ignored_images_get_no_gradient_and_a_batch_of_them_costs_nothing(
    case: Case, sources: int
) -> None:
    if case.variant == "rescue" or case.name == "MpRL":
        pytest.skip("it is for images without a target")
    _, gradient = loss_and_gradient(case, sources=sources)
    assert not gradient[5].any() and gradient.any()
    nobody = torch.full((12,), -1)
    loss, gradient = loss_and_gradient(case, FEATURES, nobody, sources=sources)
    assert loss == 0 and not gradient.any()


def test_images_of_the_sources_have_a_finite_loss(case: Case) -> None:
    """Source classes are the first rows of the label space; `domains` marks their images."""
    memory = a_memory(MEMORY_OF.get(case.id, MEMORY_OF.get(case.name, "cluster")), 3)
    if case.name == "GraphPositives":
        memory = MEMORIES.get("instance")(init="features", source_rows=True)
        memory.set_source_images(torch.arange(12) % 3)
        memory.reset(unit_rows(30, 8), torch.arange(30) % 6 - 1)
        memory.source_rows.copy_(unit_rows(12, 8, seed=4))
    x = FEATURES.clone().requires_grad_()
    theirs, domains = torch.arange(12) % 3, torch.ones(12, dtype=torch.int64)
    batch = replace(batch_of(case, x, sources=3), targets=theirs, domains=domains)
    assert torch.isfinite(loss_of(case)(batch, memory))


# ---- types and degenerate batches --------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_loss_is_float32_inside_autocast_and_near_float64(
    case: Case, dtype: torch.dtype, device: str
) -> None:
    x = unit_rows(12, 8, seed=1).to(dtype)
    expected, _ = loss_and_gradient(case, x.double())
    x = x.to(device).requires_grad_()
    memory = copy.deepcopy(memory_of(case)).to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = copy.deepcopy(loss_of(case)).to(device)(batch_of(case, x), memory)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.dtype == torch.float32 and loss.device == gradient.device == x.device
    assert gradient.dtype == dtype
    torch.testing.assert_close(loss.double().cpu(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "targets"),
    [
        (1, [0]),
        (1, [-1]),
        (6, [0, 0, 0, 0, 0, 0]),
        (6, [0, 1, 2, 3, 4, 0]),
        (5, [0, 1, 2, 3, 4]),
        (2, [1, 1]),
    ],
    ids=["one", "one ignored", "one class", "one pair", "no pair", "only a pair"],
)
@pytest.mark.parametrize("kind", ["random", "all alike", "zero"])
def test_degenerate_batches_have_a_finite_loss_and_gradient(
    case: Case, rows: int, targets: list[int], kind: str
) -> None:
    x = {"random": FEATURES, "all alike": FEATURES[:1].repeat(12, 1), "zero": 0 * FEATURES}[kind]
    wanted = torch.tensor(targets, dtype=torch.int64)
    loss, gradient = loss_and_gradient(case, x[:rows].float(), wanted, CAMERAS[:rows])
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    rows=st.lists(st.lists(finite, min_size=8, max_size=8), min_size=1, max_size=7),
    targets=st.lists(st.integers(-1, 3), min_size=7, max_size=7),
)
@settings(max_examples=8, deadline=None)
def test_no_finite_features_give_nan(
    case: Case, rows: list[list[float]], targets: list[int]
) -> None:
    x, size = torch.tensor(rows, dtype=torch.float32), len(rows)
    loss, gradient = loss_and_gradient(case, x, torch.tensor(targets)[:size], CAMERAS[:size])
    assert torch.isfinite(loss) and not torch.isnan(gradient).any()


# ---- what it leaves alone ----------------------------------------------------------------------


@pytest.mark.parametrize("cameras", [torch.zeros(12, dtype=torch.int64), CAMERAS])
def test_two_calls_give_the_same_bytes_and_leave_no_trace(case: Case, cameras: Tensor) -> None:
    memory, loss = memory_of(case), loss_of(case)
    batch = batch_of(case, FEATURES.clone(), TARGETS.clone(), cameras)
    state = {name: value.clone() for name, value in loss.state_dict().items()}

    def call() -> Any:
        x = batch.features.detach().requires_grad_()
        value = loss(replace(batch, features=x), memory)
        return value, torch.autograd.grad(value, x)

    repeated(call, batch, memory.get_state())
    assert as_bytes(dict(loss.state_dict())) == as_bytes(state)


def test_the_memory_is_only_read(case: Case) -> None:
    memory = memory_of(case)
    before = as_bytes(memory.get_state())
    loss_and_gradient(case)
    assert as_bytes(memory.get_state()) == before
    assert not any(value.requires_grad for value in memory.buffers())


def test_its_state_makes_another_one_equal(case: Case) -> None:
    torch.manual_seed(4)
    other = case.part(**case.arguments)
    other.load_state_dict(loss_of(case).state_dict())
    memory, batch = memory_of(case), batch_of(case)
    assert as_bytes(other(batch, memory)) == as_bytes(loss_of(case)(batch, memory))


def test_what_it_needs_and_is_missing_is_named(case: Case) -> None:
    batch, memory = batch_of(case), memory_of(case)
    if loss_of(case).needs_memory:
        with pytest.raises(ValueError, match=r"CC\.MEMORY\.NAME"):
            loss_of(case)(batch)
    else:
        assert as_bytes(loss_of(case)(batch)) == as_bytes(loss_of(case)(batch, memory))
    if loss_of(case).needs_roles:
        with pytest.raises(ValueError, match=r"CC\.MINING"):
            loss_of(case)(replace(batch, roles=None), memory)
    alone = replace(batch, teacher_features=None, teacher_logits=None)
    if loss_of(case).needs_teacher:
        with pytest.raises(ValueError, match=r"CC\.TEACHER\.ENABLED"):
            loss_of(case)(alone, memory)
    else:
        assert as_bytes(loss_of(case)(alone, memory)) == as_bytes(loss_of(case)(batch, memory))


# ---- what it may do beside a loss --------------------------------------------------------------


def refined(case: Case, order: Tensor) -> tuple[Tensor, Tensor]:
    """(features [30, D], refined ones) of images in an order, by weights that are not zero."""
    loss = copy.deepcopy(loss_of(case))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    x = unit_rows(30, 8).float()[order]
    before = x.clone()
    graph = knn_graph(x, min(loss.neighbors_to_refine, 30))
    found = loss.refine_features(x, graph)
    assert torch.equal(x, before) and not found.requires_grad
    assert as_bytes(loss.refine_features(x, graph)) == as_bytes(found)
    return x, found


def test_a_loss_that_refines_features_says_by_how_many_neighbours(case: Case) -> None:
    """0 = the features are clustered as they are; then there is nothing to call."""
    has_method = type(loss_of(case)).refine_features is not LOSSES.base.refine_features
    assert has_method == (loss_of(case).neighbors_to_refine > 0)


def test_refined_features_follow_the_images_and_leave_them_alone(case: Case) -> None:
    if not loss_of(case).neighbors_to_refine:
        pytest.skip("it refines no features")
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    x, found = refined(case, torch.arange(30))
    assert found.shape == x.shape and torch.isfinite(found).all()
    assert not torch.allclose(found, x)
    torch.testing.assert_close(refined(case, order)[1], found[order], rtol=1e-5, atol=1e-6)


def test_its_figures_are_finite_and_begin_anew(case: Case) -> None:
    loss = loss_of(case)
    loss.figures.take()
    loss_and_gradient(case)
    found = loss.figures.take()
    assert all(np.isfinite(pair).all() and pair[1] >= 0 for pair in found.values())
    assert loss.figures.take() == {}


# ---- the losses of this repository -------------------------------------------------------------


@pytest.mark.parametrize(
    "shipped",
    [
        case
        for case in cases(LOSSES)
        if case.name not in NOT_ON_THE_SPHERE or case.variant == "cosine"
    ],
    ids=lambda case: case.id,
)
def test_scaling_the_features_changes_nothing(shipped: Case) -> None:
    factors = torch.linspace(0.1, 50, 12)[:, None].double()
    torch.testing.assert_close(
        loss_and_gradient(shipped, FEATURES * factors)[0], loss_and_gradient(shipped)[0]
    )


def test_names_that_fastreid_has_are_left_to_it() -> None:
    assert not {"CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface"} & set(LOSSES.names())
