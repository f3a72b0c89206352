"""Compiled steps of the k-reciprocal Jaccard distance, each over a range of images.

Sets and weights of all images are kept as CSR: indptr i64 [N+1], indices i32, values f32. A pair's
distance is computed once, from the side of its lower index.
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
    known = np.full(n, -1, np.int64)  # known[j] = i: the similarity is in i's list
    value = np.empty(n, np.float32)
    members = np.empty(k + k * k, np.int32)
    indptr = np.zeros(stop - start + 1, np.int64)
    indices = np.empty(64 * (stop - start), np.int32)
    values = np.empty(64 * (stop - start), np.float32)
    at = 0
    for i in range(start, stop):
        count = 0
        for a in range(k):
            j = ranks[i, a]
            value[j] = similarity[i, a]
            known[j] = i
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
            if known[j] != i:
                value[j] = _pair_similarity(i, j, ranks, similarity, features)
        indices = _grow(indices, at + count)
        values = _grow(values, at + count)
        total = 0.0
        for j in members[:count]:
            total += np.exp(2.0 * value[j] - 2.0)
        for j in members[:count]:
            indices[at] = j
            values[at] = np.exp(2.0 * value[j] - 2.0) / total
            at += 1
        indptr[i - start + 1] = at
    return indptr, indices[:at], values[:at]


@jit
def query_expansion(start, stop, members, indptr, indices, values):  # type: ignore[no-untyped-def]
    """Rows of V averaged over the images' `members` (i64 [N, m], -1 = none)."""
    n = indptr.shape[0] - 1
    mark = np.full(n, -1, np.int64)
    out_indptr = np.zeros(stop - start + 1, np.int64)
    out_indices = np.empty(128 * (stop - start), np.int32)
    out_values = np.empty(128 * (stop - start), np.float32)
    at = 0
    for i in range(start, stop):
        first = at
        used = np.float32(0)
        for m in members[i]:
            if m < 0:
                continue
            used += np.float32(1)
            out_indices = _grow(out_indices, at + indptr[m + 1] - indptr[m])
            out_values = _grow(out_values, at + indptr[m + 1] - indptr[m])
            for p in range(indptr[m], indptr[m + 1]):
                j = indices[p]
                if mark[j] < first:
                    mark[j] = at
                    out_indices[at] = j
                    out_values[at] = values[p]
                    at += 1
                else:
                    out_values[mark[j]] += values[p]
        for p in range(first, at):
            out_values[p] /= used
        out_indptr[i - start + 1] = at
    return out_indptr, out_indices[:at], out_values[:at]


@jit
def transposed(indptr, indices, values, columns):  # type: ignore[no-untyped-def]
    """The transpose of a CSR matrix, by counting; its columns ascend in each row."""
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
def rare_first(order, indptr, indices, values, columns):  # type: ignore[no-untyped-def]
    """The transpose, each row listing its columns in the given `order` (a permutation)."""
    out_indptr = np.zeros(columns + 1, np.int64)
    for j in indices:
        out_indptr[j + 1] += 1
    for j in range(columns):
        out_indptr[j + 1] += out_indptr[j]
    cursor = out_indptr[:-1].copy()
    out_indices = np.empty(indices.shape[0], np.int32)
    out_values = np.empty(indices.shape[0], np.float32)
    for i in order:
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            out_indices[cursor[j]] = i
            out_values[cursor[j]] = values[p]
            cursor[j] += 1
    return out_indptr, out_indices, out_values


@jit
def _first_after(indices, start, stop, row):  # type: ignore[no-untyped-def]
    """Position of the first entry >= row among the ascending indices[start:stop]."""
    while start < stop:
        middle = (start + stop) >> 1
        if indices[middle] < row:
            start = middle + 1
        else:
            stop = middle
    return start


@jit
def jaccard_pairs(start, stop, v, by_column, limit, low):  # type: ignore[no-untyped-def]
    """Pairs i < j, j >= low, with 1 - s / (2 - s) <= limit, s = sum of min(V_i, V_j).

    The pair needs s >= 2 (1 - limit) / (2 - limit). Columns of i are walked rarest first; once the
    weight left is below that, a pair not met before cannot be near enough and is not taken up.
    """
    indptr, indices, values = v
    c_indptr, c_indices, c_values = by_column
    n = indptr.shape[0] - 1
    needed = np.float32(2 * (1 - limit) / (2 - limit) - 1e-5)
    overlap = np.zeros(n, np.float64)
    met = np.empty(n + 1, np.int32)
    out_indptr = np.zeros(stop - start + 1, np.int64)
    out_indices = np.empty(64 * (stop - start), np.int32)
    out_values = np.empty(64 * (stop - start), np.float32)
    at = 0
    for i in range(start, stop):
        left = np.float32(0)
        for p in range(indptr[i], indptr[i + 1]):
            left += values[p]
        count = 0
        for p in range(indptr[i], indptr[i + 1]):
            c = indices[p]
            weight = values[p]
            first = _first_after(c_indices, c_indptr[c], c_indptr[c + 1], max(i + 1, low))
            if left >= needed:
                for q in range(first, c_indptr[c + 1]):
                    j = np.uint32(c_indices[q])
                    met[count] = j
                    count += overlap[j] == 0
                    overlap[j] += min(weight, c_values[q])
            else:
                for q in range(first, c_indptr[c + 1]):
                    j = np.uint32(c_indices[q])
                    sofar = overlap[j]
                    overlap[j] = sofar + (min(weight, c_values[q]) if sofar > 0 else 0.0)
            left -= weight
        out_indices = _grow(out_indices, at + count)
        out_values = _grow(out_values, at + count)
        for m in range(count):
            j = met[m]
            s = overlap[j]
            overlap[j] = 0
            distance = np.float32(max(1.0 - s / (2.0 - s), 0.0))
            out_indices[at] = j
            out_values[at] = distance
            at += distance <= limit
        out_indptr[i - start + 1] = at
    return out_indptr, out_indices[:at], out_values[:at]


@jit
def mirrored(lower, upper):  # type: ignore[no-untyped-def]
    """The symmetric matrix from both strict triangles (columns ascending), diagonal zero."""
    n = lower[0].shape[0] - 1
    size = lower[1].shape[0] + upper[1].shape[0] + n
    indptr = np.zeros(n + 1, np.int64)
    indices, values = np.empty(size, np.int32), np.empty(size, np.float32)
    at = 0
    for i in range(n):
        for p in range(lower[0][i], lower[0][i + 1]):
            indices[at] = lower[1][p]
            values[at] = lower[2][p]
            at += 1
        indices[at] = i
        values[at] = 0
        at += 1
        for p in range(upper[0][i], upper[0][i + 1]):
            indices[at] = upper[1][p]
            values[at] = upper[2][p]
            at += 1
        indptr[i + 1] = at
    return indptr, indices, values


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


def sparse_jaccard(weights: Csr, limit: float, low: int = 0) -> tuple[Csr, Csr]:
    """Pairs i < j (j >= low) at most `limit` apart, as (upper triangle, its transpose)."""
    n = len(weights[0]) - 1
    by_column = transposed(*weights, n)
    order = np.argsort(np.diff(by_column[0]), kind="stable")
    weights = rare_first(order, *by_column, n)
    pairs = by_rows(
        jaccard_pairs, n if low == 0 else low, weights, by_column, np.float32(limit), low
    )
    lower = transposed(*pairs, n)
    return transposed(*lower, n), lower


def softmax_rows(rows: int, row: np.ndarray, column: np.ndarray, similarity: np.ndarray) -> Csr:
    """V from pairs (row, column, cosine): softmax(-d^2) in each row, d^2 = 2 - 2 cos."""
    order = np.argsort(row, kind="stable")
    row, column = row[order], column[order]
    weight = np.exp(2.0 * similarity[order].astype(np.float64) - 2.0)
    weight /= np.bincount(row, weight, minlength=rows)[row]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(row, minlength=rows))])
    return indptr, column.astype(np.int32), weight.astype(np.float32)
