"""Compiled steps of the k-reciprocal Jaccard distance, each over a range of images.

Sets and weights of all images are kept as CSR: indptr i64 [N+1], indices i32, values f32, columns
ascending. Every sum runs over ascending columns, so the distance is symmetric to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import cosine, jit, run_chunks
from ..structures import KnnGraph

Csr = tuple[np.ndarray, np.ndarray, np.ndarray]


@jit
def _grow(array, needed):  # type: ignore[no-untyped-def]
    """The array, or a copy with room for `needed` entries."""
    if needed <= array.shape[0]:
        return array
    larger = np.empty(max(needed, 2 * array.shape[0]), array.dtype)
    larger[: array.shape[0]] = array
    return larger


@jit
def reciprocal_mask(start, stop, ranks, k, mask):  # type: ignore[no-untyped-def]
    """mask[i, a] = whether i is among the first k neighbours of its a-th neighbour (a < k)."""
    for i in range(start, stop):
        for a in range(k):
            j = ranks[i, a]
            found = False
            for b in range(k):
                found |= ranks[j, b] == i
            mask[i, a] = found


@jit
def _pair_similarity(i, j, ranks, similarity, features):  # type: ignore[no-untyped-def]
    """Cosine of a pair; read from j's list where it is there (the values are the same)."""
    for b in range(ranks.shape[1]):
        if ranks[j, b] == i:
            return similarity[j, b]
    return cosine(features[i], features[j])


@jit
def expanded_weights(start, stop, ranks, similarity, features, full, half, k_half):  # type: ignore[no-untyped-def]
    """Rows of V: softmax(-d^2) over the expanded k-reciprocal set, d^2 = 2 - 2 cos."""
    n, k = ranks.shape
    mark = np.full(n, -1, np.int64)  # mark[j] = 2 i: j in R(i); 2 i + 1: added by the expansion
    value = np.empty(n, np.float32)
    indptr = np.zeros(stop - start + 1, np.int64)
    indices = np.empty(64 * (stop - start), np.int32)
    values = np.empty(64 * (stop - start), np.float32)
    members = np.empty(k + k * k, np.int32)
    for i in range(start, stop):
        count = 0
        for a in range(k):
            j = ranks[i, a]
            if full[i, a]:
                mark[j] = 2 * i
                members[count] = j
                count += 1
        base = count
        for c in range(base):
            candidate = members[c]
            size = 0
            common = 0
            for b in range(k_half):
                if half[candidate, b]:
                    size += 1
                    common += mark[ranks[candidate, b]] == 2 * i
            if 3 * common > 2 * size:
                for b in range(k_half):
                    j = ranks[candidate, b]
                    if half[candidate, b] and mark[j] < 2 * i:
                        mark[j] = 2 * i + 1
                        members[count] = j
                        count += 1
        for j in members[base:count]:
            value[j] = _pair_similarity(i, j, ranks, similarity, features)
        for a in range(k):
            value[ranks[i, a]] = similarity[i, a]
        ordered = np.sort(members[:count])
        total = 0.0
        for j in ordered:
            total += np.exp(2.0 * np.float64(value[j]) - 2.0)
        at = indptr[i - start]
        indices = _grow(indices, at + count)
        values = _grow(values, at + count)
        for j in ordered:
            indices[at] = j
            values[at] = np.exp(2.0 * np.float64(value[j]) - 2.0) / total
            at += 1
        indptr[i - start + 1] = at
    return indptr, indices[:at].copy(), values[:at].copy()


@jit
def query_expansion(start, stop, members, indptr, indices, values):  # type: ignore[no-untyped-def]
    """Rows of V averaged over the images' `members` (i64 [N, k2], -1 = none)."""
    n = indptr.shape[0] - 1
    mark = np.full(n, -1, np.int64)
    value = np.empty(n, np.float32)
    touched = np.empty(1024, np.int32)
    out_indptr = np.zeros(stop - start + 1, np.int64)
    out_indices = np.empty(128 * (stop - start), np.int32)
    out_values = np.empty(128 * (stop - start), np.float32)
    at = 0
    for i in range(start, stop):
        count = 0
        used = 0
        for m in members[i]:
            if m < 0:
                continue
            used += 1
            touched = _grow(touched, count + indptr[m + 1] - indptr[m])
            for p in range(indptr[m], indptr[m + 1]):
                j = indices[p]
                if mark[j] != i:
                    mark[j] = i
                    value[j] = 0.0
                    touched[count] = j
                    count += 1
                value[j] += values[p]
        out_indices = _grow(out_indices, at + count)
        out_values = _grow(out_values, at + count)
        for j in np.sort(touched[:count]):
            out_indices[at] = j
            out_values[at] = value[j] / np.float32(used)
            at += 1
        out_indptr[i - start + 1] = at
    return out_indptr, out_indices[:at].copy(), out_values[:at].copy()


@jit
def inverted(indptr, indices, values, columns):  # type: ignore[no-untyped-def]
    """The transpose: for each column its rows, ascending, and their weights."""
    out_indptr = np.zeros(columns + 1, np.int64)
    for j in indices:
        out_indptr[j + 1] += 1
    for j in range(columns):
        out_indptr[j + 1] += out_indptr[j]
    cursor = out_indptr[:-1].copy()
    out_indices = np.empty(indices.shape[0], np.int32)
    out_values = np.empty(indices.shape[0], np.float32)
    for i in range(indptr.shape[0] - 1):
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            out_indices[cursor[j]] = i
            out_values[cursor[j]] = values[p]
            cursor[j] += 1
    return out_indptr, out_indices, out_values


@jit
def jaccard_rows(start, stop, indptr, indices, values, t_indptr, t_indices, t_values, limit, low):  # type: ignore[no-untyped-def]
    """Pairs (i, j), j >= low, with 1 - s / (2 - s) <= limit, s = sum of min(V_i, V_j)."""
    n = t_indptr.shape[0] - 1
    overlap = np.zeros(n, np.float32)
    touched = np.empty(n, np.int32)
    out_indptr = np.zeros(stop - start + 1, np.int64)
    out_indices = np.empty(64 * (stop - start), np.int32)
    out_values = np.empty(64 * (stop - start), np.float32)
    at = 0
    one = np.float32(1)
    for i in range(start, stop):
        count = 0
        for p in range(indptr[i], indptr[i + 1]):
            c = indices[p]
            v = values[p]
            for q in range(t_indptr[c], t_indptr[c + 1]):
                j = t_indices[q]
                if overlap[j] == 0 and j >= low:
                    touched[count] = j
                    count += 1
                overlap[j] += min(v, t_values[q])
        out_indices = _grow(out_indices, at + count)
        out_values = _grow(out_values, at + count)
        for j in np.sort(touched[:count]):
            s = overlap[j]
            distance = max(one - s / (np.float32(2) - s), np.float32(0))
            if distance <= limit:
                out_indices[at] = j
                out_values[at] = distance
                at += 1
        for p in range(indptr[i], indptr[i + 1]):
            c = indices[p]
            for q in range(t_indptr[c], t_indptr[c + 1]):
                overlap[t_indices[q]] = 0
        out_indptr[i - start + 1] = at
    return out_indptr, out_indices[:at].copy(), out_values[:at].copy()


def by_rows(kernel: Any, rows: int, *arguments: Any) -> Csr:
    """Runs a kernel that returns CSR pieces and joins them."""
    pieces = run_chunks(kernel, rows, *arguments)
    counts = [np.diff(piece[0]) for piece in pieces]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))])
    return (
        indptr,
        np.concatenate([piece[1] for piece in pieces]),
        np.concatenate([piece[2] for piece in pieces]),
    )


def half_size(k: int, k1: int) -> int:
    """Length of the half list: round(k1 / 2) + 1, half to even, at most k."""
    return min(k, int(np.around(k1 / 2)) + 1)


def reciprocal_weights(graph: KnnGraph, features: np.ndarray, k1: int, k2: int) -> Csr:
    """V of all images."""
    n, k = graph.indices.shape
    k_half = half_size(k, k1)
    full, half = np.empty((n, k), np.bool_), np.empty((n, k_half), np.bool_)
    run_chunks(reciprocal_mask, n, graph.indices, k, full)
    run_chunks(reciprocal_mask, n, graph.indices, k_half, half)
    weights = by_rows(
        expanded_weights, n, graph.indices, graph.similarity, features, full, half, k_half
    )
    if k2 == 1:
        return weights
    return by_rows(query_expansion, n, graph.indices[:, :k2].copy(), *weights)
