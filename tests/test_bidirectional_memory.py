"""BidirectionalMemory (BMW): loops, limits, that it spreads the rows."""

from __future__ import annotations

import pytest
import torch
from oracles.losses import hard_update, make_batch, mean_update, sequential_update, unit, unit_rows

from fastreid_cc.memories import updates
from fastreid_cc.memories.bidirectional import BidirectionalMemory
from fastreid_cc.memories.cluster import ClusterMemory

TARGETS = torch.tensor([2, 0, 2, -1, 4, 2, 0])
RULES = {"all": sequential_update, "hard": hard_update, "mean": mean_update}


def filled(**options: object) -> BidirectionalMemory:
    memory = BidirectionalMemory(**options)  # type: ignore[arg-type]
    memory.reset(unit_rows(6, 8), torch.arange(6))
    return memory


@pytest.mark.parametrize("on_cuda", [False, True])
@pytest.mark.parametrize("nearest", [1, 2, 50])
@pytest.mark.parametrize("rule", RULES)
def test_equal_to_loops(
    rule: str, nearest: int, on_cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "is_padded", lambda index: on_cuda)
    memory = filled(update=rule, momentum=0.3, push=0.4, nearest=nearest)
    before, f = memory.rows.clone(), unit_rows(7, 8, seed=2)
    memory.update(make_batch(3 * f, TARGETS))
    wanted = RULES[rule](before, TARGETS, f, 0.3)
    for c in (0, 2, 4):
        others = sorted(
            (r for r in range(6) if r != c), key=lambda r: -float(before[c] @ before[r])
        )
        away = sum(before[r] for r in others[:nearest]) / len(others[:nearest])
        wanted[c] = unit(wanted[c] - 0.4 * away)
    torch.testing.assert_close(memory.rows, wanted)


@pytest.mark.parametrize("options", [{"push": 0.0}, {"push": 0.5, "momentum": 1.0}])
def test_without_a_push_it_is_the_cluster_memory_to_the_byte(options: dict[str, float]) -> None:
    ours, theirs = filled(**options), ClusterMemory(momentum=options.get("momentum", 0.1))
    theirs.reset(unit_rows(6, 8), torch.arange(6))
    for memory in (ours, theirs):
        memory.update(make_batch(unit_rows(7, 8, seed=2), TARGETS))
    assert torch.equal(ours.rows, theirs.rows)


def test_a_row_ends_farther_from_its_nearest() -> None:
    """Two look-alikes: with the push their rows are less similar after the same images."""
    x = unit(torch.eye(8).double()[[0, 0, 1]] + 0.2 * unit_rows(3, 8))

    def similarity(push: float) -> float:
        memory = BidirectionalMemory(push=push)
        memory.reset(x, torch.arange(3))
        for _ in range(3):
            memory.update(make_batch(x[:2], torch.arange(2)))
        return float(memory.rows[0] @ memory.rows[1])

    assert similarity(0.2) < similarity(0.02) < similarity(0.0)


def test_a_single_row_stays_a_cluster_memorys() -> None:
    memory = BidirectionalMemory(push=0.5, momentum=0.0)
    memory.reset(unit_rows(2, 8), torch.zeros(2, dtype=torch.int64))
    f = unit_rows(1, 8, seed=4)
    memory.update(make_batch(f, torch.tensor([0])))
    torch.testing.assert_close(memory.rows, f)
