"""MpRL: the formula in loops, its closed forms, and which images it is for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastreid_cc.losses.memory_contrast import MemoryContrast
from fastreid_cc.losses.mprl import MpRL, graded_labels
from fastreid_cc.memories.cluster import ClusterMemory
from fastreid_cc.memories.instance import InstanceMemory
from fastreid_cc.structures import Batch

SCHEMES = pytest.mark.parametrize("scheme", ["rank", "uniform", "argmax", "argsort"])


def label_by_loops(values: list[float], scheme: str, top: int) -> list[float]:
    """q of one image, class by class."""
    size = len(values)
    order = sorted(range(size), key=lambda k: (values[k], k))  # ties: the lower class first
    top = 1 if scheme == "argmax" else top or size
    q = []
    for k in range(size):
        rank = order.index(k) + 1
        share = {"uniform": 1.0, "argsort": order[k] + 1.0}.get(scheme, float(rank))
        q.append(share if rank > size - top else 0.0)
    return [value / sum(q) for value in q]


def a_memory(classes: int = 7) -> ClusterMemory:
    rows = torch.randn(classes, 5, generator=torch.Generator().manual_seed(0)).double()
    memory = ClusterMemory(temperature=0.3)
    memory.reset(torch.nn.functional.normalize(rows), torch.arange(classes))
    return memory


@SCHEMES
@pytest.mark.parametrize("top", [0, 1, 3, 99])
def test_value_and_gradient_are_those_of_the_formula(scheme: str, top: int) -> None:
    memory, rng = a_memory(), np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(6, 5))).requires_grad_()
    targets = torch.tensor([-1, 2, -1, -1, 0, -1])
    found = MpRL(scheme=scheme, top=top)(Batch.of(x, targets), memory)
    total: Any = 0.0
    for i in (0, 2, 3, 5):
        z = memory.rows.double() @ (x[i] / x[i].norm()) / 0.3
        p = z.exp() / z.exp().sum()
        q = label_by_loops(z.tolist(), scheme, min(top, 7))
        total = total - sum(q_k * p_k.log() for q_k, p_k in zip(q, p, strict=True)) / 4
    torch.testing.assert_close(found, total, rtol=1e-6, atol=1e-9)
    mine, theirs = (torch.autograd.grad(value, x)[0] for value in (found, total))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-8)
    assert not mine[[1, 4]].any() and mine[0].any()


@pytest.mark.parametrize(("classes", "wanted"), [(10, 0.1513), (80, 0.1871), (751, 0.1925)])
def test_the_tilt_of_the_rank_label_is_the_closed_form(classes: int, wanted: float) -> None:
    q = graded_labels(torch.randn(1, classes, dtype=torch.float64))[0]
    tilt = float((q * (q * classes).log()).sum())
    assert tilt == pytest.approx(wanted, abs=5e-5) and tilt < math.log(2) - 0.5
    assert q.max() == pytest.approx(2 / (classes + 1))


@given(
    values=st.lists(st.integers(-3, 3), min_size=2, max_size=9),
    top=st.integers(0, 10),
    scheme=st.sampled_from(["rank", "uniform", "argmax", "argsort"]),
)
@settings(max_examples=60, deadline=None)
def test_labels_sum_to_one_with_ties_and_with_any_top(
    values: list[int], top: int, scheme: str
) -> None:
    q = graded_labels(torch.tensor([values], dtype=torch.float64), scheme, top)[0]
    assert float(q.sum()) == pytest.approx(1)
    wanted = label_by_loops([float(v) for v in values], scheme, min(top, len(values)))
    np.testing.assert_allclose(q.numpy(), wanted, atol=1e-12)
    one = graded_labels(torch.tensor([values], dtype=torch.float64), "rank", 1)[0]
    argmax = graded_labels(torch.tensor([values], dtype=torch.float64), "argmax", top)[0]
    assert torch.equal(one, argmax) and values[int(argmax.argmax())] == max(values)


class Plain:
    """A memory whose logits are the features themselves."""

    epoch, num_sources, label_smoothing = 0, 0, 0.0

    def __init__(self, logits: Tensor) -> None:
        self.given = logits

    def logits(self, features: Tensor, batch: Batch) -> Tensor:
        return self.given

    def loss_mask(self, batch: Batch) -> None:
        return None


@SCHEMES
def test_the_gradient_of_the_logits_is_p_minus_q(scheme: str) -> None:
    logits = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    batch = Batch.of(torch.ones(3, 2).double(), torch.full((3,), -1))
    loss = MpRL(scheme=scheme)(batch, Plain(logits))  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(loss, logits)
    wanted = (logits.softmax(1) - graded_labels(logits, scheme)).detach() / 3
    torch.testing.assert_close(gradient, wanted)


def test_the_published_codes_labels_are_not_the_ranks() -> None:
    logits = torch.randn(1, 751, generator=torch.Generator().manual_seed(0))
    rank, theirs = (graded_labels(logits, scheme)[0] for scheme in ("rank", "argsort"))
    probabilities = logits[0].double()
    ours = np.corrcoef(rank, probabilities)[0, 1]
    assert ours > 0.9 and abs(np.corrcoef(theirs, probabilities)[0, 1]) < 0.15
    assert sorted(rank.tolist()) == pytest.approx(sorted(theirs.tolist()))


def test_classes_that_a_memory_leaves_out_are_not_graded() -> None:
    """An instance memory that contrasts within a camera."""
    rows = torch.nn.functional.normalize(torch.randn(6, 4, dtype=torch.float64))
    memory = InstanceMemory(init="features", negatives="same_camera")
    cameras = torch.tensor([0, 0, 0, 1, 1, 1])
    memory.reset(rows, torch.arange(6), cameras=cameras)
    batch = Batch.of(rows.clone().requires_grad_(), torch.full((6,), -1), cameras=cameras)
    mask = memory.loss_mask(batch)
    assert mask is not None
    q = graded_labels(memory.logits(rows, batch), "rank", 0, mask)
    assert not q[~mask].any()
    torch.testing.assert_close(q.sum(1), mask.any(1).to(q.dtype))
    assert torch.isfinite(MpRL()(batch, memory))


def test_before_its_epoch_and_without_such_images_it_costs_nothing() -> None:
    memory, x = a_memory(), torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    free = Batch.of(x, torch.full((4,), -1))
    for loss, batch in (
        (MpRL(start_epoch=3), free),
        (MpRL(), Batch.of(x, torch.tensor([0, 1, 2, 3]))),
    ):
        value = loss(batch, memory)
        assert value == 0 and not torch.autograd.grad(value, x)[0].any()
    memory.set_epoch(3)
    assert MpRL(start_epoch=3)(free, memory) > 0
    mixed = Batch.of(x, torch.tensor([0, -1, 2, -1]))
    contrast = MemoryContrast()(mixed, memory)
    assert contrast == MemoryContrast()(Batch.of(x[[0, 2]], torch.tensor([0, 2])), memory)


def test_one_class_is_refused_with_the_count() -> None:
    batch = Batch.of(torch.ones(2, 5).double(), torch.full((2,), -1))
    with pytest.raises(ValueError, match=r"MODEL.LOSSES.MpRL over clusters has 1 class to grade"):
        MpRL()(batch, a_memory(1))


def test_over_labelled_classes_every_image_is_graded_by_the_classifier() -> None:
    logits = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    batch = Batch.of(torch.ones(3, 5).double(), torch.tensor([0, -1, 2]), class_logits=logits)
    loss = MpRL(over="classes")(batch, a_memory())
    wanted = -(graded_labels(logits) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, wanted)
    with pytest.raises(ValueError, match="CC.SOURCES.LOSSES"):
        MpRL(over="classes")(Batch.of(batch.features, batch.targets), a_memory())
