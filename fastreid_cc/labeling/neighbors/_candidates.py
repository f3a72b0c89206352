"""Compiled steps of the exact search: collect candidates from product blocks, then rank them.

A block product gives each similarity up to a known error. A row keeps every column that may be
among its k best given that error ("candidates"); the candidates' similarities are then computed
anew (float64 sum, rounded once), which decides membership and order. The answer therefore does not
depend on the precision, the block size, the matrix library or the number of threads.
`Store` is (values f32 [M, room], ids i32 [M, room], counts i64 [M], bars f32 [M], errors f32 [M],
rounding, k): a column is a candidate of row m if its value reaches bars[m]. A value v is off by at
most errors[m] + rounded(v): what was lost before the sum, and in rounding the sum itself. It is a
plain tuple because numba's cache on disk cannot be read where a class it names is not, or no more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..kernels import jit
from ._precision import Operand

Store = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.float32, int]
_HITS = 1 << 16  # entries collected before they are handed over

OPEN = np.float32(-np.inf)  # bar of a row that takes everything
CLOSED = np.float32(np.inf)  # bar of a row whose candidates outgrew their room


def new_store(operand: Operand, rows: np.ndarray, k: int) -> Store:
    """No candidates yet for the k nearest of some rows, i64 [M], of the data set."""
    count, room = len(rows), 2 * k + 196
    return (
        np.empty((count, room), np.float32),
        np.empty((count, room), np.int32),
        np.zeros(count, np.int64),
        np.full(count, OPEN, np.float32),
        operand.errors[rows],
        operand.rounding,
        k,
    )


@jit
def rounded(value, rounding):
    """Error of rounding a sum to `value`; relative, but values up to 1 have no step above 2^-8."""
    return min(abs(value) * rounding, rounding / np.float32(2))


@jit
def kth_largest(values, k):
    """The k-th largest of f32 values, more than k of them; Hoare's selection on a copy."""
    work = values.copy()
    low, high, wanted = 0, work.shape[0] - 1, k - 1
    while low < high:
        pivot = work[(low + high) >> 1]
        a, b = low, high
        while a <= b:
            while work[a] > pivot:
                a += 1
            while work[b] < pivot:
                b -= 1
            if a <= b:
                work[a], work[b] = work[b], work[a]
                a += 1
                b -= 1
        if wanted <= b:
            high = b
        elif wanted >= a:
            low = a
        else:
            break
    return work[wanted]


@jit
def _bar(kth, error, rounding):
    """The least value that may belong to one of the k best, the k-th best value being `kth`."""
    reach = abs(kth) + np.float32(2) * error + rounding
    return kth - np.float32(2) * (error + rounded(reach, rounding))


@jit
def _keep_best(m, store):
    """Sets the bar of row m and drops its candidates below; closes the row if few are dropped."""
    values, ids, counts, bars, errors, rounding, k = store
    count, kept = counts[m], 0
    bar = _bar(kth_largest(values[m, :count], k), errors[m], rounding)
    for c in range(count):
        if values[m, c] >= bar:
            values[m, kept] = values[m, c]
            ids[m, kept] = ids[m, c]
            kept += 1
    counts[m] = kept
    bars[m] = bar if kept <= values.shape[1] - 16 else CLOSED


@jit
def push(m, j, value, store):
    """Gives row m the candidate j, and makes room when its list is full."""
    values, ids, counts = store[:3]
    c = counts[m]
    values[m, c] = value
    ids[m, c] = j
    counts[m] = c + 1
    if c + 1 == values.shape[1]:
        _keep_best(m, store)


@jit
def absorb(scores, first_row, first_column, store):
    """Takes a whole block, for its rows, and sets their bars."""
    _, _, counts, bars, errors, rounding, k = store
    for b in range(scores.shape[0]):
        m = first_row + b
        if counts[m] == 0 and scores.shape[1] > k:
            bars[m] = _bar(kth_largest(scores[b], k), errors[m], rounding)
        for c in range(scores.shape[1]):
            if scores[b, c] >= bars[m]:
                push(m, first_column + c, scores[b, c], store)


@jit
def scan(scores, start, row_bars, column_bars, positions, hits):
    """Collects the entries of a block that reach the bar of their row or of their column.

    Starts at row `start` and stops early, between rows, when the hits might not fit. Scores and
    bars are f32, or both ordered i16. The inner loop has no branch, so that it is vectorised.

    Returns:
        (row to go on from, number of hits); a position is b * columns + c, a hit its score.
    """
    rows, columns = scores.shape
    lanes = 64
    count = 0
    for b in range(start, rows):
        if count + columns > hits.shape[0]:
            return b, count
        bar = row_bars[b]
        for first in range(0, columns, lanes):
            part = scores[b, first : min(first + lanes, columns)]
            bars = column_bars[first : first + part.shape[0]]
            reached = np.int32(0)
            for lane in range(part.shape[0]):
                reached |= np.int32(part[lane] >= min(bar, bars[lane]))
            if reached:
                for lane in range(part.shape[0]):
                    if part[lane] >= min(bar, bars[lane]):
                        positions[count] = b * columns + first + lane
                        hits[count] = part[lane]
                        count += 1
    return rows, count


def hits_of(
    operand: Operand, scores: np.ndarray, bars: np.ndarray, column_bars: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`scan` of a whole block: positions i32 and values f32 of its hits, some at a time.

    Args:
        operand: what gave the scores.
        scores: a block [a, b] of its products.
        bars: f32 [a], of the rows; a value that is yielded may lie under a bar that has risen.
        column_bars: f32 [b]; None: no column takes anything.
    """
    columns = scores.shape[1]
    if column_bars is None:
        column_bars = np.full(columns, CLOSED, np.float32)
    bars, column_bars = operand.to_order(bars), operand.to_order(column_bars)
    positions = np.empty(_HITS + columns, np.int32)
    found = np.empty(_HITS + columns, scores.dtype)
    row = 0
    while row < len(scores):
        row, count = scan(scores, row, bars, column_bars, positions, found)
        yield positions[:count], operand.to_float(found[:count])


@jit
def absorb_hits(positions, hits, columns, first_row, first_column, by_column, store):
    """Gives hits to their rows, or to their columns (the block read as its transpose)."""
    bars = store[3]
    for h in range(hits.shape[0]):
        b, c = positions[h] // columns, positions[h] % columns
        if by_column:
            b, c = c, b
        if hits[h] >= bars[first_row + b]:
            push(first_row + b, first_column + c, hits[h], store)
