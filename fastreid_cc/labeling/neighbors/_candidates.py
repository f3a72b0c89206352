"""Compiled steps of the exact search: collect candidates from product blocks, then rank them.

A block product gives each similarity up to a known error. A row keeps every column that may be
among its k best given that error ("candidates"); the candidates' similarities are then computed
anew (float64 sum, rounded once), which decides membership and order. The answer therefore does not
depend on the precision, the block size, the matrix library or the number of threads.

`store` is (values f32 [M, room], ids i32 [M, room], counts i64 [M], bars f32 [M], errors f32 [M],
rounding, k): a column is a candidate of row m if its value reaches bars[m]. A value v is off by at
most errors[m] + _rounded(v): what was lost before the sum, and in rounding the sum itself.
"""

from __future__ import annotations

import numpy as np

from ..kernels import jit

OPEN = np.float32(-np.inf)  # bar of a row that takes everything
CLOSED = np.float32(np.inf)  # bar of a row whose candidates outgrew their room


@jit
def rounded(value, rounding):  # type: ignore[no-untyped-def]
    """Error of rounding a sum to `value`; relative, but values up to 1 have no step above 2^-8."""
    return min(abs(value) * rounding, rounding / np.float32(2))


@jit
def kth_largest(values, k):  # type: ignore[no-untyped-def]
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
def _bar(kth, error, rounding):  # type: ignore[no-untyped-def]
    """The least value that may belong to one of the k best, the k-th best value being `kth`."""
    reach = abs(kth) + np.float32(2) * error + rounding
    return kth - np.float32(2) * (error + rounded(reach, rounding))


@jit
def _keep_best(m, store):  # type: ignore[no-untyped-def]
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
def push(m, j, value, store):  # type: ignore[no-untyped-def]
    """Gives row m the candidate j, and makes room when its list is full."""
    values, ids, counts = store[:3]
    c = counts[m]
    values[m, c] = value
    ids[m, c] = j
    counts[m] = c + 1
    if c + 1 == values.shape[1]:
        _keep_best(m, store)


@jit
def absorb(scores, first_row, first_column, store):  # type: ignore[no-untyped-def]
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
def scan(scores, start, row_bars, column_bars, positions, hits):  # type: ignore[no-untyped-def]
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


@jit
def absorb_hits(positions, hits, columns, first_row, first_column, by_column, store):  # type: ignore[no-untyped-def]
    """Gives hits to their rows, or to their columns (the block read as its transpose)."""
    bars = store[3]
    for h in range(hits.shape[0]):
        b, c = positions[h] // columns, positions[h] % columns
        if by_column:
            b, c = c, b
        if hits[h] >= bars[first_row + b]:
            push(first_row + b, first_column + c, hits[h], store)
