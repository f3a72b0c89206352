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

from ..kernels import cosine, jit

OPEN = np.float32(-np.inf)  # bar of a row that takes everything
CLOSED = np.float32(np.inf)  # bar of a row whose candidates outgrew their room


@jit
def _rounded(value, rounding):  # type: ignore[no-untyped-def]
    """Error of rounding a sum to `value`; relative, but values up to 1 have no step above 2^-8."""
    return min(abs(value) * rounding, rounding / np.float32(2))


@jit
def _kth_largest(values, k):  # type: ignore[no-untyped-def]
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
    return kth - np.float32(2) * (error + _rounded(reach, rounding))


@jit
def _keep_best(m, store):  # type: ignore[no-untyped-def]
    """Sets the bar of row m and drops its candidates below; closes the row if few are dropped."""
    values, ids, counts, bars, errors, rounding, k = store
    count, kept = counts[m], 0
    bar = _bar(_kth_largest(values[m, :count], k), errors[m], rounding)
    for c in range(count):
        if values[m, c] >= bar:
            values[m, kept] = values[m, c]
            ids[m, kept] = ids[m, c]
            kept += 1
    counts[m] = kept
    bars[m] = bar if kept <= values.shape[1] - 16 else CLOSED


@jit
def _push(m, j, value, store):  # type: ignore[no-untyped-def]
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
            bars[m] = _bar(_kth_largest(scores[b], k), errors[m], rounding)
        for c in range(scores.shape[1]):
            if scores[b, c] >= bars[m]:
                _push(m, first_column + c, scores[b, c], store)


@jit
def to_bfloat16(start, stop, features, bits, lost):  # type: ignore[no-untyped-def]
    """bits[i]: row i rounded to bfloat16 (nearest, ties to even); lost[i]: norm of the rest."""
    one, low, keep = np.int32(1), np.int32(0x7FFF), np.int32(-0x10000)
    for i in range(start, stop):
        exact = features[i].view(np.int32)
        rounded = np.empty(exact.shape[0], np.int32)
        for d in range(exact.shape[0]):
            rounded[d] = (exact[d] + low + ((exact[d] >> np.int32(16)) & one)) & keep
            bits[i, d] = rounded[d] >> np.int32(16)
        near = rounded.view(np.float32)
        total = np.float32(0)
        for d in range(exact.shape[0]):
            gap = features[i, d] - near[d]
            total += gap * gap
        lost[i] = np.sqrt(total)


@jit
def to_ordered16(bits):  # type: ignore[no-untyped-def]
    """Turns bfloat16 bit patterns into i16 that compare as the values do, in place."""
    for b in range(bits.shape[0]):
        for c in range(bits.shape[1]):
            bits[b, c] ^= (bits[b, c] >> np.int16(15)) & np.int16(0x7FFF)


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
            _push(first_row + b, first_column + c, hits[h], store)


@jit
def _insert(score, j, filled, best, best_ids):  # type: ignore[no-untyped-def]
    """Puts (score, j) in its place behind the first entry; the last of a full list falls off."""
    if filled == best.shape[0]:
        filled -= 1
        if score < best[filled] or (score == best[filled] and j > best_ids[filled]):
            return filled + 1
    at = filled
    while at > 1 and (score > best[at - 1] or (score == best[at - 1] and j < best_ids[at - 1])):
        best[at] = best[at - 1]
        best_ids[at] = best_ids[at - 1]
        at -= 1
    best[at] = score
    best_ids[at] = j
    return filled + 1


@jit
def _rank_row(i, values, ids, error, rounding, features, best, best_ids):  # type: ignore[no-untyped-def]
    """Fills best, best_ids (k) from the candidates: first the k likeliest, then any that may do."""
    k = best.shape[0]
    best[0] = cosine(features[i], features[i])
    best_ids[0] = i
    filled = 1
    if k == 1:
        return
    kth = _kth_largest(values, k) if values.shape[0] > k else OPEN
    for c in range(values.shape[0]):
        j = np.int64(ids[c])
        if values[c] >= kth and j != i:
            filled = _insert(cosine(features[i], features[j]), j, filled, best, best_ids)
    for c in range(values.shape[0]):
        j = np.int64(ids[c])
        most = values[c] + error + _rounded(values[c], rounding)
        if values[c] < kth and j != i and (filled < k or most >= best[k - 1]):
            filled = _insert(cosine(features[i], features[j]), j, filled, best, best_ids)


@jit
def rank(start, stop, who, features, store, indices, similarity):  # type: ignore[no-untyped-def]
    """The k best of each row by exact similarity: the image itself, then descending, ties by index.

    Rows with a CLOSED bar are left as they are.
    """
    values, ids, counts, bars, errors, rounding, k = store
    for m in range(start, stop):
        if bars[m] != CLOSED:
            n = counts[m]
            _rank_row(
                who[m],
                values[m, :n],
                ids[m, :n],
                errors[m],
                rounding,
                features,
                similarity[m],
                indices[m],
            )


@jit
def _rank_against_all(i, features, scores, ids, best, best_ids):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(features.shape[0]):
        scores[j] = cosine(features[i], features[j])
        ids[j] = j
    _rank_row(i, scores, ids, zero, zero, features, best, best_ids)


@jit
def rank_all(start, stop, who, features, indices, similarity):  # type: ignore[no-untyped-def]
    """As `rank`, with every image a candidate: for the few rows that need it."""
    scores, ids = np.empty(features.shape[0], np.float32), np.empty(features.shape[0], np.int32)
    for m in range(start, stop):
        _rank_against_all(who[m], features, scores, ids, similarity[m], indices[m])


@jit
def rank_proposed(start, stop, who, features, proposed, indices, similarity):  # type: ignore[no-untyped-def]
    """The k best of the images `proposed` for each row (i32 [M, c], -1 = none).

    A row with fewer than k of them, itself included, is ranked against all images.
    """
    n, k = features.shape[0], indices.shape[1]
    scores, ids = np.empty(n, np.float32), np.empty(n, np.int32)
    zero = np.float32(0)
    for m in range(start, stop):
        i = who[m]
        count = 0
        others = 0
        for j in proposed[m]:
            if j >= 0:
                ids[count] = j
                scores[count] = zero
                count += 1
                others += j != i
        if others < k - 1:
            _rank_against_all(i, features, scores, ids, similarity[m], indices[m])
            continue
        for c in range(count):
            scores[c] = cosine(features[i], features[ids[c]])
        _rank_row(i, scores[:count], ids[:count], zero, zero, features, similarity[m], indices[m])
