"""Exact k nearest neighbours by cosine similarity: blocked product, then exact ranking."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels import Progress, num_threads, run_chunks, run_tasks, split_rows
from ..registry import NEIGHBORS
from ..structures import KnnGraph
from . import _candidates as kernels
from ._precision import Operand

_HITS = 1 << 16  # entries a thread collects before it hands them over


class _Store:
    """Candidates of rows `first`..`stop`, and the locks that guard them block by block."""

    def __init__(self, rows: range, k: int, operand: Operand, block: int) -> None:
        room = max(4 * k, k + 96)
        self.rows, self.k, self.block = rows, k, block
        self.values = np.empty((len(rows), room), np.float32)
        self.ids = np.empty((len(rows), room), np.int32)
        self.counts = np.zeros(len(rows), np.int64)
        self.thresholds = np.full(len(rows), kernels.NONE, np.float32)
        self.errors = operand.errors[rows.start : rows.stop]
        self.margins = 2 * self.errors
        self.arrays = (self.values, self.ids, self.counts, self.thresholds)
        self.locks = [threading.Lock() for _ in range(-(-len(rows) // block))]


def _work(store: _Store, operand: Operand, a: range, b: range, scratch: threading.local) -> None:
    """One block of the product, for the rows of both sides that are asked for."""
    first, asked = store.rows.start, range(store.rows.start, store.rows.stop)
    scores = operand.product(a, b, scratch)
    row = a.start - first
    if a == b or not _inside(b, asked):
        with store.locks[row // store.block]:
            if store.thresholds[row : row + len(a)].max() == kernels.NONE:
                kernels.absorb(operand.floats(scores), row, b.start, store.arrays, store.k, store.margins)
                kernels.tighten(row, row + len(a), store.arrays, store.k, store.margins)
                return
    two_sided = a != b and _inside(b, asked)
    column = b.start - first if two_sided else 0
