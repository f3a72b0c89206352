"""Compiled steps of the exact search: collect candidates from product blocks, then rank them.

A block product gives each similarity up to a known error. A row keeps every column that may be
among its k best given that error ("candidates"); the candidates' similarities are then computed
anew (float64 sum, rounded once), which decides membership and order. The answer therefore does not
depend on the precision, the block size, the matrix library or the number of threads.
"""

from __future__ import annotations

import numpy as np

from ..kernels import cosine, jit

NONE = np.float32(-np.inf)  # threshold of a row that takes everything
CLOSED = np.float32(np.inf)  # threshold of a row that has more candidates than room


@jit
def keep_best(values, ids, count, k, margin):  # type: ignore[no-untyped-def]
    """Drops entries that cannot be among the k best; returns how many stay, and the threshold.

    An entry stays if its value is at least the k-th best minus `margin` (twice the error).
    """
    if count <= k:
        return count, NONE
    threshold = np.partition(values[:count], count - k)[count - k] - margin
    kept = 0
    for c in range(count):
        if values[c] >= threshold:
            values[kept] = values[c]
            ids[kept] = ids[c]
            kept += 1
    return kept, threshold


@jit
def _push(m, j, value, store, k, margins):  # type: ignore[no-untyped-def]
    """Gives row m the candidate j, and makes room when its list is full."""
    values, ids, counts, thresholds = store
    c = counts[m]
    values[m, c] = value
    ids[m, c] = j
    c += 1
    if c == values.shape[1]:
        c, threshold = keep_best(values[m], ids[m], c, k, margins[m])
        if c > values.shape[1] - values.shape[1] // 8:
            threshold = CLOSED
        thresholds[m] = threshold
    counts[m] = c


@jit
def absorb(scores, first_row, first_column, store, k, margins):  # type: ignore[no-untyped-def]
    """Takes a block [b, c] for its rows only: row b is `first_row` + b, column likewise."""
    thresholds = store[3]
    for b in range(scores.shape[0]):
        for c in range(scores.shape[1]):
            if scores[b, c] >= thresholds[first_row + b]:
                _push(first_row + b, first_column + c, scores[b, c], store, k, margins)


@jit
def tighten(first_row, stop_row, store, k, margins):  # type: ignore[no-untyped-def]
    """Sets the thresholds from what the rows hold."""
    values, ids, counts, thresholds = store
    for m in range(first_row, stop_row):
        if thresholds[m] < CLOSED and counts[m] > k:
            counts[m], thresholds[m] = keep_best(values[m], ids[m], counts[m], k, margins[m])


@jit
def scan(scores, start, row_bar, column_bar, hit_position, hit_value):  # type: ignore[no-untyped-def]
    """Collects the entries that reach the bar of their row or of their column.

    Starts at row `start` and stops early, between rows, when the hits might not fit.

    Returns:
        (row to go on from, number of hits); a position is b * columns + c.
    """
    rows, columns = scores.shape
    lanes = 64
    whole = columns - columns % lanes
    hits = 0
    for b in range(start, rows):
        if hits + columns > hit_value.shape[0]:
            return b, hits
        bar = row_bar[b]
        line = scores[b]
        for c in range(0, whole, lanes):
            reached = 0
            for lane in range(lanes):
                reached += (line[c + lane] >= bar) | (line[c + lane] >= column_bar[c + lane])
            if reached:
                for d in range(c, c + lanes):
                    if line[d] >= bar or line[d] >= column_bar[d]:
                        hit_position[hits] = b * columns + d
                        hit_value[hits] = line[d]
                        hits += 1
        for d in range(whole, columns):
            if line[d] >= bar or line[d] >= column_bar[d]:
                hit_position[hits] = b * columns + d
                hit_value[hits] = line[d]
                hits += 1
    return rows, hits


@jit
def absorb_hits(position, value, columns, first_row, first_column, by_column, store, k, margins):  # type: ignore[no-untyped-def]
    """Gives hits to their rows, or to their columns (the block read as its transpose)."""
    thresholds = store[3]
    for h in range(value.shape[0]):
        b, c = position[h] // columns, position[h] % columns
        m, j = (first_column + c, first_row + b) if by_column else (first_row + b, first_column + c)
        if value[h] >= thresholds[m]:
            _push(m, j, value[h], store, k, margins)


@jit
def rank(start, stop, first, features, store, k, errors, indices, similarity):  # type: ignore[no-untyped-def]
    """The k best of each row by exact similarity, descending; ties by index, the image itself first.

    A row's candidates are scored in the order of their approximate value, until none of the rest
    can reach the k best found so far. Rows with a CLOSED threshold are left as they are.
    """
    values, ids, counts, thresholds = store
    best = np.empty(k, np.float32)
    who = np.empty(k, np.int64)
    for m in range(start, stop):
        if thresholds[m] == CLOSED:
            continue
        i = first + m
        best[0] = cosine(features[i], features[i])
        who[0] = i
        filled = 1
        order = np.argsort(-values[m, : counts[m]])
        for o in order:
            j = np.int64(ids[m, o])
            if filled == k and values[m, o] + errors[m] < best[k - 1]:
                break
            if j == i or k == 1:
                continue
            score = cosine(features[i], features[j])
            if filled == k and (score < best[k - 1] or (score == best[k - 1] and j > who[k - 1])):
                continue
            at = min(filled, k - 1)
            while at > 1 and (
                score > best[at - 1] or (score == best[at - 1] and j < who[at - 1])
            ):
                best[at] = best[at - 1]
                who[at] = who[at - 1]
                at -= 1
            best[at] = score
            who[at] = j
            filled = min(filled + 1, k)
        indices[m] = who
        similarity[m] = best


@jit
def score_all(start, stop, rows, features, out):  # type: ignore[no-untyped-def]
    """Exact similarity of each of `rows` to every image: for rows with too many candidates."""
    for r in range(start, stop):
        for j in range(features.shape[0]):
            out[r, j] = cosine(features[rows[r]], features[j])
