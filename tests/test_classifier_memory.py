"""The classifier memory against torch's autograd, optimizers and the formula in loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from oracles.losses import make_batch, unit_rows
from torch import Tensor

from fastreid_cc.losses.memory_contrast import MemoryContrast
from fastreid_cc.memories.classifier import ClassifierMemory
from fastreid_cc.memories.pair import PairMemory
from fastreid_cc.structures import Batch

LABELS = torch.arange(20) % 5 - 1  # four clusters, four outliers
FEATURES = unit_rows(20, 6)


def filled(sources: int = 0, **arguments: object) -> ClassifierMemory:
    memory = ClassifierMemory(temperature=0.3, **arguments)  # type: ignore[arg-type]
    memory.reset(FEATURES, LABELS, source_centroids=unit_rows(sources, 6, seed=1))
    return memory


def batch(seed: int = 0, sources: int = 0) -> Batch:
    """Five images of the target, one without a target; three of the sources if there are any."""
    targets = torch.tensor([0, 1, 1, 3, -1])
    targets = torch.where(targets >= 0, targets + sources, targets)
    features = 2 * unit_rows(5 + 3 * bool(sources), 6, seed=2 + seed)
    if not sources:
        return make_batch(features, targets)
    targets = torch.cat([targets, torch.tensor([0, 1, 1])])
    return make_batch(features, targets, domains=(torch.arange(8) > 4).long())


def loss_of(rows: Tensor, b: Batch, smoothing: float = 0.1) -> Tensor:
    """Mean cross-entropy of the target's images, plus that of the sources'."""
    total = rows.new_zeros(())
    for part in (~b.is_source, b.is_source):
        kept = b.select(part & (b.targets >= 0))
        if len(kept.targets):
            logits = F.normalize(kept.features) @ rows.T / 0.3
            total = total + F.cross_entropy(logits, kept.targets, label_smoothing=smoothing)
    return total


@pytest.mark.parametrize("sources", [0, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_rows_gradient_is_autograds(sources: int, smoothing: float) -> None:
    memory, b = filled(sources, label_smoothing=smoothing), batch(sources=sources)
    rows = memory.rows.clone().requires_grad_()
    loss_of(rows, b, smoothing).backward()
    found = memory.gradient(F.normalize(b.features), b)
    torch.testing.assert_close(found, rows.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_its_steps_are_those_of_torchs_optimizer(name: str) -> None:
    settings = {"learning_rate": 0.01, "weight_decay": 0.05}
    memory = filled(2, optimizer=name, **settings)
    linear = torch.nn.Linear(6, 6, bias=False, dtype=torch.float64)
    linear.weight.data.copy_(memory.rows)
    cls = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[name]
    optimizer = cls(linear.parameters(), lr=0.01, weight_decay=0.05)
    for step in range(6):
        b = batch(step, sources=2)
        optimizer.zero_grad()
        loss_of(linear.weight, b).backward()
        optimizer.step()
        memory.update(b)
        torch.testing.assert_close(memory.rows, linear.weight.data, rtol=1e-10, atol=1e-12)
    memory.reset(FEATURES, LABELS)
    assert memory.steps == 0 and not memory.first_moment.any() and len(memory.rows) == 4
    torch.testing.assert_close(memory.rows.norm(dim=1), torch.ones(4, dtype=torch.float64))


def test_the_loss_is_the_smoothed_cross_entropy_of_a_linear_classifier() -> None:
    memory, b = filled(), batch()
    logits = F.normalize(b.features) @ memory.rows.T / 0.3
    wanted, count = 0.0, 0
    for z, target in zip(logits.tolist(), b.targets.tolist(), strict=True):
        if target < 0:
            continue
        total = math.log(sum(map(math.exp, z)))
        for c, value in enumerate(z):
            wanted -= (0.9 * (c == target) + 0.1 / 4) * (value - total)
        count += 1
    x = b.features.clone().requires_grad_()
    found = MemoryContrast()(replace(b, features=x), memory)
    torch.testing.assert_close(found.item(), wanted / count)
    found.backward()
    y = b.features.clone().requires_grad_()
    loss_of(memory.rows, replace(b, features=y)).backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_a_pair_moves_each_half_by_its_own_features() -> None:
    pair, alone = PairMemory(ClassifierMemory(), ClassifierMemory()), ClassifierMemory()
    features = torch.cat([FEATURES, unit_rows(20, 6, seed=9)], dim=1)
    pair.reset(features, LABELS)
    alone.reset(FEATURES, LABELS)
    b, other = batch(), batch(7)
    pair.update(replace(b, features=torch.cat([b.features, other.features], dim=1)))
    alone.update(b)
    torch.testing.assert_close(pair.first.rows, alone.rows)
    assert (pair.second.rows - alone.rows).abs().max() > 0.1


def test_within_autocast_nothing_changes() -> None:
    one, other = (ClassifierMemory() for _ in range(2))
    b = replace(batch(), features=batch().features.float())
    for memory in (one, other):
        memory.reset(FEATURES.float(), LABELS)
    one.update(b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other.update(b)
    assert torch.equal(one.rows, other.rows)
