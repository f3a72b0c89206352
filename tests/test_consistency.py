"""Processes in step: equal buffers, a hash that sees every byte, an error with the ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gloo import run_in_two
from torch import nn

from fastreid_cc.parallel import collectives as distributed
from fastreid_cc.parallel.consistency import digest, refuse_if_apart, share_buffers

STATE = {"rows": torch.tensor([[1.0, -0.0]]), "epoch": 3, "both": [np.arange(3), None]}


def in_group() -> dict[str, Any]:
    rank = distributed.rank()
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(2))
    for buffer in model.buffers():
        buffer.fill_(rank + 5)
    model[1].weight.data.fill_(rank)
    share_buffers(model)
    refuse_if_apart("equal", STATE)
    try:
        refuse_if_apart("epoch 7: the memory", {"rows": torch.full((2, 2), float(rank))})
        message = ""
    except RuntimeError as error:
        message = str(error)
    return {
        "buffers": [buffer.tolist() for buffer in model.buffers()],
        "weight": model[1].weight.tolist(),
        "message": message,
    }


@pytest.fixture(scope="module")
def two() -> list[dict[str, Any]]:
    if not torch.distributed.is_available():
        pytest.skip("torch without distributed")
    return run_in_two(in_group)


def test_buffers_are_those_of_the_first_and_parameters_stay(two: Any) -> None:
    fives = [[5.0] * 3, [5.0] * 3, 5, [5.0] * 2, [5.0] * 2, 5]
    assert [found["buffers"] for found in two] == [fives, fives]
    assert [found["weight"] for found in two] == [[0.0, 0.0], [1.0, 1.0]]


def test_states_that_differ_are_refused_on_both_with_time_and_ranks(two: Any) -> None:
    for found in two:
        assert found["message"].startswith("epoch 7: the memory differs between processes")
        assert "same bytes: 0 | 1." in found["message"]


def test_alone_nothing_is_compared() -> None:
    refuse_if_apart("anything", object())


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "rows": torch.tensor([[1.0, 0.0]])},  # another sign bit
        {**STATE, "rows": torch.tensor([[1.0], [-0.0]])},
        {**STATE, "rows": torch.tensor([[1.0, -0.0]], dtype=torch.float64)},
        {**STATE, "epoch": 4},
        {**STATE, "epoch": "3"},
        {**STATE, "both": [np.arange(3)]},
        {key: value for key, value in STATE.items() if key != "epoch"},
    ],
)
def test_every_byte_counts(other: dict[str, Any]) -> None:
    assert digest(other) != digest(STATE)


def test_the_order_of_keys_and_where_bytes_lie_do_not_count() -> None:
    turned = {key: STATE[key] for key in reversed(STATE)}
    assert digest(turned) == digest(STATE)
    rows = torch.arange(6.0).reshape(2, 3)
    assert digest(rows.T.contiguous().T) == digest(rows) == digest(rows.numpy())
    assert len(digest(torch.empty(0, 0))) == 8
