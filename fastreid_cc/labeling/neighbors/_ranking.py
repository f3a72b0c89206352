"""Compiled steps of the searches: exact similarities decide which candidates are the nearest.

Order in every list: the image itself, then by similarity, ties by index.
"""

from __future__ import annotations

import numpy as np

from ..kernels import cosine, jit
from ._candidates import CLOSED, OPEN, kth_largest, rounded


@jit
def _insert(score, j, filled, best, best_ids):
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
def _rank_row(i, values, ids, error, rounding, features, best, best_ids):
    """Fills best, best_ids (k) from the candidates: first the k likeliest, then any that may do."""
    k = best.shape[0]
    best[0] = cosine(features[i], features[i])
    best_ids[0] = i
    filled = 1
    if k == 1:
        return
    kth = kth_largest(values, k) if values.shape[0] > k else OPEN
    for c in range(values.shape[0]):
        j = np.int64(ids[c])
        if values[c] >= kth and j != i:
            filled = _insert(cosine(features[i], features[j]), j, filled, best, best_ids)
    for c in range(values.shape[0]):
        j = np.int64(ids[c])
        most = values[c] + error + rounded(values[c], rounding)
        if values[c] < kth and j != i and (filled < k or most >= best[k - 1]):
            filled = _insert(cosine(features[i], features[j]), j, filled, best, best_ids)


@jit
def rank(start, stop, who, features, store, indices, similarity):
    """The k best of each row by exact similarity: the image itself, then descending, ties by index.

    Rows with a CLOSED bar are left as they are.
    """
    values, ids, counts, bars, errors, rounding, _ = store
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
def _rank_against_all(i, features, scores, ids, best, best_ids):
    zero = np.float32(0)
    for j in range(features.shape[0]):
        scores[j] = cosine(features[i], features[j])
        ids[j] = j
    _rank_row(i, scores, ids, zero, zero, features, best, best_ids)


@jit
def rank_all(start, stop, who, features, indices, similarity):
    """As `rank`, with every image a candidate: for the few rows that need it."""
    scores, ids = np.empty(features.shape[0], np.float32), np.empty(features.shape[0], np.int32)
    for m in range(start, stop):
        _rank_against_all(who[m], features, scores, ids, similarity[m], indices[m])


@jit
def rank_proposed(start, stop, who, features, proposed, indices, similarity):
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
