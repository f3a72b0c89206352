"""The first of two processes leads, both search; errors of either are raised on both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gloo import run_in_two

from fastreid_cc.labeling.neighbors import cells as cells_module
from fastreid_cc.labeling.neighbors.cells import CellSearch
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.parallel import collectives as distributed
from fastreid_cc.parallel.rank_zero import first_leads, picklable, run_on_rank0
from fastreid_cc.registry import NEIGHBORS

if not torch.distributed.is_available():
    pytest.skip("torch without distributed", allow_module_level=True)

FEATURES = torch.nn.functional.normalize(
    torch.randn(301, 16, generator=torch.Generator().manual_seed(0))
)
#: Few queries per group, so that 301 images have groups for two processes.
QUERIES = 32


class Counted:
    """A search that remembers how many rows it was asked for."""

    def __init__(self, search: Any, *, splits: bool) -> None:
        self.search, self.splits, self.asked = search, splits, 0

    def __call__(self, features: Any, k: int, rows: Any = None, progress: Any = None) -> Any:
        if rows == range(150, 301):
            raise Odd("second", "half")
        self.asked += len(features if rows is None else rows)
        return self.search(features, k, rows=rows, progress=progress)


class Odd(Exception):
    """Cannot be unpickled: its constructor takes two arguments, its state holds one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def graph_bytes(search: Any) -> bytes:
    graph = search(FEATURES, 9)
    return bytes(graph.indices.tobytes() + graph.similarity.tobytes())


def caught(work: Callable[[], Any]) -> str:
    try:
        return str(work())
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


def fail(search: Any) -> None:
    raise KeyError("first")


def in_group() -> dict[str, Any]:
    cells_module._QUERIES = QUERIES
    whole = Counted(ExactKNN(), splits=False)
    found = {
        "exact": first_leads(ExactKNN(), FEATURES, graph_bytes),
        "cells": first_leads(CellSearch(lists=12, share=0.3), FEATURES, graph_bytes),
        "whole": first_leads(whole, FEATURES, graph_bytes),
        "asked": whole.asked,
        "leader": caught(lambda: first_leads(ExactKNN(), FEATURES, fail)),
        "second": caught(
            lambda: first_leads(Counted(ExactKNN(), splits=True), FEATURES, graph_bytes)
        ),
        "first's": run_on_rank0(distributed.rank),
    }
    distributed.set_label_timeout(0.03)
    if distributed.rank() == 1:
        found["late"] = caught(lambda: distributed.broadcast_object(None))
    else:
        torch.distributed.new_group(backend="gloo")  # as the waiting one makes its group
        torch.distributed.barrier()
    if distributed.rank() == 1:
        torch.distributed.barrier()
    return found


@pytest.fixture(scope="module")
def two() -> list[dict[str, Any]]:
    return run_in_two(in_group, timeout=300.0)


def test_a_shared_search_gives_the_bytes_of_one_process(two: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(cells_module, "_QUERIES", QUERIES)
    alone = {"exact": ExactKNN(), "cells": CellSearch(lists=12, share=0.3)}
    for name, search in alone.items():
        assert [found[name] for found in two] == [graph_bytes(search)] * 2


def test_a_search_that_does_not_split_is_done_once_on_the_first(two: Any) -> None:
    assert [found["asked"] for found in two] == [301, 0]
    assert two[0]["whole"] == two[1]["whole"] == two[0]["exact"]


def test_errors_reach_both_processes(two: Any) -> None:
    assert [found["leader"] for found in two] == ["KeyError: 'first'"] * 2
    assert [found["second"] for found in two] == ["RuntimeError: Odd: second half"] * 2


def test_the_first_decides(two: Any) -> None:
    assert [found["first's"] for found in two] == [0, 0]


def test_waiting_too_long_names_the_key(two: Any) -> None:
    assert "waited 0.03 minutes" in two[1]["late"] and "CC.LABEL_TIMEOUT_MINUTES" in two[1]["late"]


def test_an_error_that_can_travel_stays_as_it_is() -> None:
    error = ValueError("x")
    assert picklable(error) is error
    assert isinstance(picklable(Odd("a", "b")), RuntimeError)


def test_parts_are_all_rows_once_and_whole_groups() -> None:
    search = CellSearch(lists=5)
    prepared = search.prepare(FEATURES)
    for count in (1, 2, 3):
        parts = search.parts(count, **prepared)
        assert len(parts) == count
        assert sorted(np.concatenate(parts)) == list(range(301))


@pytest.mark.parametrize("name", NEIGHBORS.names())
def test_a_search_says_whether_its_slices_make_up_the_whole(name: str) -> None:
    """Those that say so are compared above."""
    assert getattr(NEIGHBORS.get(name), "splits", False) == (name in ("exact", "cells"))
