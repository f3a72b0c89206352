"""Exact k nearest neighbours by cosine similarity: a blocked product, then exact ranking."""

from __future__ import annotations

import functools
import threading

import numpy as np
import torch
from torch import Tensor

from ...parallel.processor import has_bfloat16_units
from ...registry import NEIGHBORS
from ...structures import KnnGraph, Progress
from ..kernels import num_threads, run_chunks, run_tasks
from . import _candidates as kernels
from ._device_search import search_on_device
from ._precision import Operand
from ._ranking import rank, rank_all
from .base import Array, NeighborSearch, Rows

_Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # indices, similarity, rows left open


class _Collector:
    """Candidates of some rows, filled block by block from several threads.

    Args:
        operand: the rows of the data set.
        asked: the rows to search for: a range (then pairs inside it are multiplied once, for
            both sides), or i64 [M].
        k: neighbours.
        block: rows per side of a block.
    """

    def __init__(self, operand: Operand, asked: range | np.ndarray, k: int, block: int) -> None:
        self.operand, self.block = operand, block
        self.symmetric = isinstance(asked, range)
        self.who = np.asarray(asked, dtype=np.int64)
        self.first = int(self.who[0]) if self.symmetric else 0
        picked = operand.rows[self.first :] if self.symmetric else operand.rows[self.who]
        self.left = picked[: len(self.who)]
        self.k, self.store = k, kernels.new_store(operand, self.who, k)
        self.bars = self.store[3]
        self.locks = [threading.Lock() for _ in range(-(-len(self.who) // block))]
        self.scratch = threading.local()

    def blocks(self) -> list[tuple[range, range, bool]]:
        """(rows of ours, rows of the data set, whether these are ours too), the diagonal first."""
        rows, n, size = len(self.who), len(self.operand.rows), self.block
        ours = [range(a, min(a + size, rows)) for a in range(0, rows, size)]
        inside = range(self.first, self.first + rows) if self.symmetric else range(0)
        others = [
            range(a, min(a + size, part.stop))
            for part in (range(inside.start), range(inside.stop, n))
            for a in range(part.start, part.stop, size)
        ]
        pairs = [(a, b) for a in ours for b in ours if a.start <= b.start and self.symmetric]
        pairs.sort(key=lambda pair: pair[1].start - pair[0].start)
        shifted = [(a, range(self.first + b.start, self.first + b.stop), True) for a, b in pairs]
        return shifted + [(a, b, False) for b in others for a in ours]

    def take(self, a: range, b: range, ours: bool) -> None:
        """Multiplies one block and hands its entries to the rows they may serve."""
        scores = self.operand.product(self.left[a.start : a.stop], b, self.scratch)
        bars, lock = self.bars, self.locks[a.start // self.block]
        column = b.start - self.first
        if ours and column == a.start:
            with lock:
                kernels.absorb(self.operand.to_float(scores), a.start, b.start, self.store)
            return
        now = bars[a.start : a.stop].copy(), bars[column : column + len(b)].copy() if ours else None
        for positions, values in kernels.hits_of(self.operand, scores, *now):
            hits = (positions, values, len(b))
            with lock:
                kernels.absorb_hits(*hits, a.start, b.start, False, self.store)
            if ours:
                with self.locks[column // self.block]:
                    kernels.absorb_hits(*hits, column, self.first + a.start, True, self.store)

    def run(self, host: np.ndarray, progress: Progress | None) -> _Found:
        """Collects, then ranks."""
        rows, k = len(self.who), self.k
        tasks = [functools.partial(self.take, *block) for block in self.blocks()]
        run_tasks(tasks, progress=progress, stage="neighbors")
        indices, similarity = np.empty((rows, k), np.int64), np.empty((rows, k), np.float32)
        run_chunks(rank, rows, self.who, host, self.store, indices, similarity)
        return indices, similarity, np.flatnonzero(self.bars == kernels.CLOSED)


@NEIGHBORS.register("exact")
class ExactKNN(NeighborSearch):
    """Exact search; the answer is that of sorting all N similarities of each row.

    A similarity is the float64 inner product of the two float32 rows, rounded once to float32; ties
    go to the lower index, the image itself is always first. Blocks of the product only propose
    candidates under a proven error bound, so float32 and bfloat16 give the same bytes, as do any
    number of threads and any split into `rows`.

    Args:
        precision: number format of the product; "auto" is bfloat16 where the processor multiplies
            it faster.

    Cost: N^2 D floating-point operations for all rows (each pair is multiplied once), 2 M N D for a
    slice of M. Memory beyond the features: about 8 (k + 100) M bytes of candidates, 4 MB per
    thread, and with bfloat16 a copy of the features (2 N D).

    >>> near = ExactKNN()(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), 2)
    >>> near.indices.tolist()
    [[0, 2], [1, 2], [2, 1]]
    """

    splits = True
    limits = {"precision": ("auto", "float32", "bfloat16")}

    def __init__(self, *, precision: str = "auto") -> None:
        self.precision = precision

    def search(
        self, features: Tensor, k: int, rows: Rows, progress: Progress | None, **prepared: Array
    ) -> KnnGraph:
        """On a GPU the products and the ranking run there, otherwise in compiled loops."""
        assert isinstance(rows, range)  # as the parts are
        features = features.contiguous()
        low = self.precision == "bfloat16" or (
            self.precision == "auto" and has_bfloat16_units(features.device)
        )
        if features.device.type != "cpu":
            return KnnGraph(*search_on_device(features, k, rows, low, progress))
        host, block = features.numpy(), _block_size(len(rows))
        operand = Operand(features, low)
        indices, similarity, left = _Collector(operand, rows, k, block).run(host, progress)
        if len(left) and low:  # too many near the k-th best for bfloat16 to tell apart
            operand = Operand(features, False)
            again = _Collector(operand, left + rows.start, k, block).run(host, progress)
            indices[left], similarity[left], still = again
            left = left[still]
        if len(left):  # too many for float32, e.g. hundreds of duplicates: all similarities
            found = indices[left], similarity[left]
            run_chunks(rank_all, len(left), left + rows.start, host, *found, rows_per_chunk=16)
            indices[left], similarity[left] = found
        return KnnGraph(indices, similarity)

    def bytes_needed(self, images: int, size: int, k: int) -> int:
        """Estimate of the memory beyond the features, on the CPU."""
        low = self.precision == "bfloat16" or (
            self.precision == "auto" and has_bfloat16_units(torch.device("cpu"))
        )
        return images * (8 * (2 * k + 196) + 12 * k + 2 * size * low) + (8 << 20) * num_threads()


def _block_size(rows: int) -> int:
    """1024, or less where that leaves the threads too few blocks; a multiple of 64."""
    wanted = rows / (4 * num_threads()) ** 0.5
    return int(min(1024, max(128, wanted // 64 * 64)))
