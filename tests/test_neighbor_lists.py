"""Two processes make a search as one does; what goes wrong in either is raised on both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gloo import run_in_two
from oracles import labels as oracle

from fastreid_cc.labeling.neighbor_lists import find_neighbors, widest
from fastreid_cc.labeling.neighbors import cells as cells_module
from fastreid_cc.labeling.neighbors.base import NeighborSearch
from fastreid_cc.labeling.neighbors.cells import CellSearch
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.parallel import collectives as distributed
from fastreid_cc.parallel.rank_zero import gather_on_rank0, picklable, run_on_rank0
from fastreid_cc.registry import NEIGHBORS
from fastreid_cc.structures import KnnGraph, Search

if not torch.distributed.is_available():
    pytest.skip("torch without distributed", allow_module_level=True)

FEATURES = torch.nn.functional.normalize(
    torch.randn(301, 16, generator=torch.Generator().manual_seed(0))
)
CAMERAS = np.random.default_rng(0).choice(4, 301, p=[0.9, 0.07, 0.02, 0.01])
#: Few queries per group, so that 301 images have groups for two processes.
QUERIES = 32
REQUESTS = (Search(9), Search(7, "same_camera"), Search(12, "other_cameras"))


class Counted(ExactKNN):
    """A search that remembers how many rows it was asked for, and fails on the second half."""

    splits = False

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def search(self, features: Any, k: int, rows: Any, *rest: Any, **more: Any) -> KnnGraph:
        self.asked += len(rows)
        return super().search(features, k, rows, *rest, **more)


class FailsOnTheSecond(ExactKNN):
    """A search in which the second process meets an error."""

    def search(self, features: Any, k: int, rows: Any, *rest: Any, **more: Any) -> KnnGraph:
        if rows == range(150, 301):
            raise Odd("second", "half")
        return super().search(features, k, rows, *rest, **more)


class FailsToPrepare(ExactKNN):
    """A search whose preparation, by the first process, fails."""

    def prepare(self, features: Any) -> dict[str, Any]:
        raise KeyError("first")


class Odd(Exception):
    """Cannot be unpickled: its constructor takes two arguments, its state holds one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def lists(search: NeighborSearch, *, alone: bool = False) -> list[bytes]:
    graphs = find_neighbors(search, FEATURES, REQUESTS, CAMERAS, alone=alone)
    return [graph.indices.tobytes() + graph.similarity.tobytes() for graph in graphs]


def caught(work: Callable[[], Any]) -> str:
    try:
        return str(work())
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


def in_group() -> dict[str, Any]:
    cells_module._QUERIES = QUERIES
    whole = Counted()
    found = {
        "exact": lists(ExactKNN()),
        "cells": lists(CellSearch(lists=12, share=0.3)),
        "whole": lists(whole),
        "asked": whole.asked,
        "alone": lists(ExactKNN(), alone=True),
        "first fails": caught(lambda: lists(FailsToPrepare())),
        "second fails": caught(lambda: lists(FailsOnTheSecond())),
        "ranks": gather_on_rank0(distributed.rank),
        "first's": run_on_rank0(distributed.rank),
        "first's error": caught(lambda: run_on_rank0(lambda: {}["missing"])),
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


def test_the_first_of_two_processes_gets_the_bytes_of_one(two: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(cells_module, "_QUERIES", QUERIES)
    for name, search in (("exact", ExactKNN()), ("cells", CellSearch(lists=12, share=0.3))):
        assert [found[name] for found in two] == [lists(search), []]


def test_a_search_that_does_not_split_is_made_by_the_first_alone(two: Any) -> None:
    assert two[0]["asked"] >= 3 * 301 and two[1]["asked"] == 0
    assert two[0]["whole"] == two[0]["exact"]


def test_a_process_may_work_alone_in_a_group(two: Any) -> None:
    assert [found["alone"] for found in two] == [two[0]["exact"]] * 2


def test_errors_reach_both_processes(two: Any) -> None:
    assert [found["first fails"] for found in two] == ["KeyError: 'first'"] * 2
    assert [found["second fails"] for found in two] == ["RuntimeError: Odd: second half"] * 2
    assert [found["first's error"] for found in two] == ["KeyError: 'missing'"] * 2


def test_the_first_gathers_and_decides(two: Any) -> None:
    assert [found["ranks"] for found in two] == [[0, 1], []]
    assert [found["first's"] for found in two] == [0, 0]


def test_waiting_too_long_names_the_key(two: Any) -> None:
    assert "waited 0.03 minutes" in two[1]["late"]
    assert "CC.LABEL_TIMEOUT_MINUTES" in two[1]["late"]


def test_an_error_that_can_travel_stays_as_it_is() -> None:
    error = ValueError("x")
    assert picklable(error) is error
    assert isinstance(picklable(Odd("a", "b")), RuntimeError)


def by_hand(k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each row among the allowed ones: the image itself, then by similarity."""
    similarity = oracle.cosine_matrix(FEATURES.numpy())
    first = np.where(allowed, similarity + 3 * np.eye(301), -9)
    order = np.argsort(-first, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(allowed, order, 1)
    near = np.take_along_axis(similarity, order, 1)
    return np.where(found, order, -1), np.where(found, near, -2)


@pytest.mark.parametrize("number", range(3))
def test_lists_among_cameras_are_those_of_sorting_everything(number: int) -> None:
    """One camera has nine of ten images, so the first search leaves lists of others short."""
    same = CAMERAS == CAMERAS[:, None]
    allowed = (np.ones_like(same), same, ~same)[number]
    graph = find_neighbors(ExactKNN(), FEATURES, REQUESTS, CAMERAS)[number]
    indices, similarity = by_hand(REQUESTS[number].k, allowed)
    np.testing.assert_array_equal(graph.indices, indices)
    np.testing.assert_array_equal(graph.similarity, similarity)
    assert (number == 1) == bool((indices < 0).any())  # a camera has fewer than 7


def test_images_without_cameras_are_of_one() -> None:
    every, same = find_neighbors(ExactKNN(), FEATURES, (Search(5), Search(5, "same_camera")))
    np.testing.assert_array_equal(same.indices, every.indices)


def test_the_widest_list_covers_both_kinds_of_cameras() -> None:
    assert widest(()) == 0
    assert widest((Search(4), Search(30))) == 30
    assert widest(REQUESTS[1:]) == 2 * (7 + 12)


@pytest.mark.parametrize("name", NEIGHBORS.names())
def test_a_search_says_whether_its_slices_make_up_the_whole(name: str) -> None:
    """Those that say so are compared above."""
    assert NEIGHBORS.get(name).splits == (name in ("exact", "cells"))  # type: ignore[attr-defined]
