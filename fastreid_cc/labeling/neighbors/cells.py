"""Approximate search for large sets: inverted lists, searched by matrix products."""

from __future__ import annotations

import functools
import threading

import numpy as np
import torch
from torch import Tensor

from ...registry import NEIGHBORS
from ...structures import KnnGraph, Progress
from ..kernels import jit, num_threads, run_chunks, run_tasks
from . import _candidates as kernels
from ._precision import Operand
from ._ranking import rank, rank_all
from .base import Array, NeighborSearch, Rows
from .faiss_search import require_faiss

_QUERIES = 4096  # searched together by one thread
_COLUMNS = 1024  # images of a cell per product


@jit
def _absorb(positions, hits, columns, rows, first_column, store):
    """Gives each hit to its row; row b of the block is row rows[b] of the store."""
    bars = store[3]
    for h in range(hits.shape[0]):
        m = rows[positions[h] // columns]
        if hits[h] >= bars[m]:
            kernels.push(m, first_column + positions[h] % columns, hits[h], store)


class _Cells:
    """The data set in order of cells.

    Attributes:
        order: i64 [N], image at each place.
        place: i64 [N], place of each image.
        bounds: i64 [cells + 1], first place of each cell.
        rows: f32 [N, D], the features in that order.
        centres: f32 [cells, D].
        probes: cells per query.
    """

    def __init__(
        self, host: np.ndarray, cells: np.ndarray, centres: np.ndarray, share: float
    ) -> None:
        n, lists = len(host), len(centres)
        self.order = np.argsort(cells, kind="stable")
        self.place = np.empty(n, np.int64)
        self.place[self.order] = np.arange(n)
        self.bounds = np.searchsorted(cells[self.order], np.arange(lists + 1))
        self.rows = host[self.order]
        self.centres = torch.from_numpy(centres)
        self.probes = max(1, int(np.ceil(share * lists)))

    def near(self, rows: Tensor) -> list[tuple[range, np.ndarray]]:
        """(places of a cell, the rows that probe it), for each cell that is probed.

        Args:
            rows: f32 [m, D].
        """
        likeness = rows @ self.centres.t()  # [m, cells]
        chosen = likeness.topk(self.probes, dim=1).indices.flatten().numpy()
        sequence = np.argsort(chosen, kind="stable")
        edges = np.searchsorted(chosen[sequence], np.arange(len(self.centres) + 1))
        who = sequence // self.probes
        return [
            (range(int(self.bounds[c]), int(self.bounds[c + 1])), who[edges[c] : edges[c + 1]])
            for c in np.flatnonzero(np.diff(edges))
        ]


class _Search:
    """Candidates of `asked` places, filled one thread per `_QUERIES` of them."""

    def __init__(self, cells: _Cells, operand: Operand, asked: np.ndarray, k: int) -> None:
        self.cells, self.operand, self.asked = cells, operand, asked
        self.k, self.store = k, kernels.new_store(operand, asked, k)
        self.bars = self.store[3]
        self.scratch = threading.local()

    def take(self, first: int) -> None:
        """Searches the cells near a chunk of the asked rows."""
        chunk = np.arange(first, min(first + _QUERIES, len(self.asked)))
        places = torch.from_numpy(self.asked[chunk])
        left = self.operand.rows[places]
        for cell, who in self.cells.near(torch.from_numpy(self.cells.rows[self.asked[chunk]])):
            part = left[torch.from_numpy(who)]
            for at in range(cell.start, cell.stop, _COLUMNS):
                self._block(part, chunk[who], range(at, min(at + _COLUMNS, cell.stop)))

    def _block(self, left: Tensor, rows: np.ndarray, columns: range) -> None:
        scores = self.operand.product(left, columns, self.scratch)
        for positions, values in kernels.hits_of(self.operand, scores, self.bars[rows]):
            _absorb(positions, values, len(columns), rows, columns.start, self.store)

    def run(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
        """Places and similarities of the k nearest, [M, k]."""
        m, k = len(self.asked), self.k
        tasks = [functools.partial(self.take, at) for at in range(0, m, _QUERIES)]
        run_tasks(tasks, progress=progress, stage="neighbors")
        indices, similarity = np.empty((m, k), np.int64), np.empty((m, k), np.float32)
        run_chunks(rank, m, self.asked, self.cells.rows, self.store, indices, similarity)
        left = np.flatnonzero((self.bars == kernels.CLOSED) | (self.store[2] < k))
        if len(left):  # too many near the k-th best to tell apart, or too few found
            found = indices[left], similarity[left]
            who = self.asked[left]
            run_chunks(rank_all, len(left), who, self.cells.rows, *found, rows_per_chunk=16)
            indices[left], similarity[left] = found
        return indices, similarity


@NEIGHBORS.register("cells")
class CellSearch(NeighborSearch):
    """Inverted lists whose queries are searched together: exact within the cells probed.

    As with `faiss_ivf`, each image is compared with the cells whose centres are likest to it.
    Thousands of queries at a time are grouped by cell, so that the work is matrix products, which
    run at the processor's full speed; candidates are ranked exactly, as in `exact`.

    Args:
        lists: number of cells; 0 = 4 sqrt(N).
        share: share of the cells each image is compared with; 1 is the exact search. Where
            identities have fewer images than k, a small share merges clusters (docs/labels.md).
        seed: seed of the k-means (faiss), which trains on at most 64 images per cell.

    Cost: about 2 M N D share operations. Memory beyond the features: a copy in order of cells
    (4 N D bytes) and 16 (k + 100) M bytes of candidates.

    >>> rows = torch.eye(3).repeat(2, 1)
    >>> CellSearch()(rows, 2).indices[:, 1].tolist()
    [3, 4, 5, 0, 1, 2]
    """

    splits = True
    limits = {"lists": "[0, inf)", "share": "(0, 1]", "seed": "[0, inf)"}

    def __init__(self, *, lists: int = 0, share: float = 0.1, seed: int = 1) -> None:
        self.lists, self.share, self.seed = lists, share, seed

    def bytes_needed(self, images: int, size: int, k: int) -> int:
        """Estimate of the memory beyond the features."""
        return images * (8 * (2 * k + 196) + 12 * k + 4 * size)

    def prepare(self, features: Tensor) -> dict[str, np.ndarray]:
        """The k-means: "cells" i64 [N], the cell of each image, and "centres" f32 [cells, D].

        Raises:
            ImportError: without faiss.
        """
        faiss = require_faiss()
        faiss.omp_set_num_threads(num_threads())
        host = np.ascontiguousarray(features.detach().cpu().numpy())
        n, size = host.shape
        means = faiss.Kmeans(
            size,
            min(self.lists or max(1, int(4 * n**0.5)), n),
            niter=10,
            seed=self.seed,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=64,
        )
        means.train(host)
        return {"cells": means.index.search(host, 1)[1][:, 0], "centres": means.centroids}

    def parts(self, images: int, count: int, **prepared: np.ndarray) -> list[Rows]:
        """Rows for each of `count` processes: whole groups of queries, so that no byte changes."""
        order = np.argsort(prepared["cells"], kind="stable")
        groups = -(-images // _QUERIES)
        edges = [groups * part // count * _QUERIES for part in range(count + 1)]
        return [order[first:last] for first, last in zip(edges[:-1], edges[1:], strict=True)]

    def search(
        self, features: Tensor, k: int, rows: Rows, progress: Progress | None, **prepared: Array
    ) -> KnnGraph:
        """On the CPU; `prepared` may be left out.

        Raises:
            ImportError: without faiss.
        """
        asked_for = np.asarray(rows)
        host = np.ascontiguousarray(features.cpu().numpy())
        cells = _Cells(host, **(prepared or self.prepare(features)), share=self.share)
        operand = Operand(torch.from_numpy(cells.rows), low=False)  # blocks too small for bfloat16
        wanted = cells.place[asked_for]
        asked = np.sort(wanted)
        indices, similarity = _Search(cells, operand, asked, k).run(progress)
        back = np.searchsorted(asked, wanted)
        return _by_index(cells.order[indices[back]], similarity[back])


def _by_index(indices: np.ndarray, similarity: np.ndarray) -> KnnGraph:
    """Puts equal similarities in order of index; the image itself stays first."""
    tied = np.flatnonzero((similarity[:, 1:-1] == similarity[:, 2:]).any(axis=1))
    for row in tied:
        sequence = np.lexsort((indices[row, 1:], -similarity[row, 1:])) + 1
        indices[row, 1:], similarity[row, 1:] = indices[row, sequence], similarity[row, sequence]
    return KnnGraph(indices, similarity)
