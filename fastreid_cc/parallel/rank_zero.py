"""Label making by several processes: the first leads, each searches its slice of the neighbours.

While the first works the others wait for its requests. What goes wrong anywhere is raised on all.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..structures import KnnGraph, Progress
from .collectives import broadcast_object, collect_objects, rank, world_size


class _Request(NamedTuple):
    """What the first process asks of the others: their slice, with what it prepared for all."""

    k: int
    prepared: dict[str, Any]


class _Answer(NamedTuple):
    """How the first process ended."""

    value: Any
    error: Exception | None

    def result(self) -> Any:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.value


class SharedSearch:
    """A neighbour search as the first process uses it, the others being in `first_leads`.

    A search of all rows is shared, if it says by `splits = True` that slices make up the bytes of
    the whole. It may have `prepare(features)`, whose dict of keyword arguments is worked out once
    and sent to all, and `parts(count, **prepared)`, the rows each process is to search (else equal
    ranges). Any other search is done here alone.
    """

    def __init__(self, search: Any, rows: Tensor) -> None:
        self.search, self.rows = search, rows

    def __call__(
        self,
        features: Tensor,
        k: int,
        rows: range | None = None,
        progress: Progress | None = None,
    ) -> KnnGraph:
        """See the search."""
        is_whole = rows is None and features is self.rows
        if not is_whole or not getattr(self.search, "splits", False):
            alone: KnnGraph = self.search(features, k, rows=rows, progress=progress)
            return alone
        prepare = getattr(self.search, "prepare", None)
        request = _Request(k, {} if prepare is None else prepare(features))
        broadcast_object(request)
        found = collect_objects(_slice(self.search, features, request, progress))
        for graph in found:
            if isinstance(graph, Exception):
                raise graph
        return _join(_parts(self.search, len(features), request), found, k)


def _parts(search: Any, n: int, request: _Request) -> list[Any]:
    """Rows of each process, together all N: ranges or i64 arrays."""
    world = world_size()
    if hasattr(search, "parts"):
        return list(search.parts(world, **request.prepared))
    return [range(n * r // world, n * (r + 1) // world) for r in range(world)]


def _slice(
    search: Any, rows: Tensor, request: _Request, progress: Progress | None = None
) -> KnnGraph | Exception | None:
    """Neighbours of this process's rows, None if it has none; or what went wrong."""
    try:
        mine = _parts(search, len(rows), request)[rank()]
        if not len(mine):
            return None
        graph: KnnGraph = search(rows, request.k, rows=mine, progress=progress, **request.prepared)
        return graph
    except Exception as error:  # noqa: BLE001  raised again on every process
        return picklable(error)


def _join(parts: list[Any], found: list[KnnGraph | None], k: int) -> KnnGraph:
    n = sum(len(part) for part in parts)
    whole = KnnGraph(np.empty((n, k), np.int64), np.empty((n, k), np.float32))
    for part, graph in zip(parts, found, strict=True):
        if graph is not None:
            whole.indices[np.asarray(part)] = graph.indices
            whole.similarity[np.asarray(part)] = graph.similarity
    return whole


def first_leads(search: Any, rows: Tensor, work: Callable[[Any], Any]) -> Any:
    """`work(search)` of the first process, on every process; alone, just that.

    Args:
        search: a neighbour search; `work` gets one that all processes share.
        rows: f32 [N, D], unit rows, the same on all processes.
        work: called on the first process only; its result is pickled.
    Raises:
        Exception: on every process, what `work`, or the search on any process, raised.
    """
    if world_size() == 1:
        return work(search)
    if rank() == 0:
        return run_on_rank0(lambda: work(SharedSearch(search, rows)))
    while isinstance(message := broadcast_object(None), _Request):
        collect_objects(_slice(search, rows, message))
    return message.result()


def run_on_rank0(work: Callable[[], Any]) -> Any:
    """`work()` of the first process on every process, or on every process what it raised."""
    if world_size() == 1:
        return work()
    answer = None
    if rank() == 0:
        try:
            answer = _Answer(work(), None)
        except Exception as error:  # noqa: BLE001  raised again on every process
            answer = _Answer(None, picklable(error))
    received: _Answer = broadcast_object(answer)
    return received.result()


def picklable(error: Exception) -> Exception:
    """The error, or one with the same text where it does not survive the way to other processes."""
    try:
        pickle.dumps(error)
        copy.copy(error)  # built anew from its arguments, as the receiver will
        return error
    except Exception:  # noqa: BLE001  an exception's constructor may do anything
        return RuntimeError(f"{type(error).__name__}: {error}")
