"""Weights V of the k-reciprocal Jaccard distance: reciprocal sets, expansion, query expansion."""

from __future__ import annotations

import numpy as np

from ...structures import KnnGraph
from ..kernels import cosine, dot, jit, run_chunks
from ._sparse import Csr, by_rows, grow

_NONE = np.empty(0, np.float64)


@jit
def reciprocal_mask(start, stop, ranks, k, mask):
    """mask[i, a] = whether i is among the first k neighbours of its a-th neighbour (a < k)."""
    for i in range(start, stop):
        for a in range(k):
            j = ranks[i, a]
            found = False
            for b in range(k):
                found |= ranks[j, b] == i
            mask[i, a] = found


@jit
def _pair_similarity(i, j, ranks, similarity, features, halves):
    """1 - d^2 / 2 of a pair; read from j's list where it is there (the values are the same)."""
    for b in range(ranks.shape[1]):
        if ranks[j, b] == i:
            return similarity[j, b]
    if halves.shape[0]:
        return np.float32(1 + dot(features[i], features[j]) - halves[i] - halves[j])
    return cosine(features[i], features[j])


@jit
def expanded_weights(start, stop, ranks, similarity, features, halves, full, half, k_half):
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
                value[j] = _pair_similarity(i, j, ranks, similarity, features, halves)
        indices = grow(indices, at + count)
        values = grow(values, at + count)
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
def query_expansion(start, stop, members, indptr, indices, values):
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
            out_indices = grow(out_indices, at + indptr[m + 1] - indptr[m])
            out_values = grow(out_values, at + indptr[m + 1] - indptr[m])
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


def half_size(k: int, k1: int) -> int:
    """Length of the half list: round(k1 / 2) + 1, half to even, at most k."""
    return min(k, int(np.around(k1 / 2)) + 1)


def reciprocal_weights(
    graph: KnnGraph, features: np.ndarray, k1: int, k2: int, halves: np.ndarray = _NONE
) -> Csr:
    """V of all images, after query expansion.

    Args:
        graph: the k1 nearest (fewer if there are fewer images) of each image.
        features: f32 [N, D].
        k1: as asked for; sets the half list.
        k2: images averaged; 1 is none.
        halves: f64 [N], half the squared length of each row, if rows are not unit; the graph's
            similarity is then 1 - d^2 / 2.
    """
    n, k = graph.indices.shape
    k_half = half_size(k, k1)
    full, half = np.empty((n, k), np.bool_), np.empty((n, k_half), np.bool_)
    run_chunks(reciprocal_mask, n, graph.indices, k, full)
    run_chunks(reciprocal_mask, n, graph.indices, k_half, half)
    lists = graph.indices, graph.similarity
    weights = by_rows(expanded_weights, n, *lists, features, halves, full, half, k_half)
    if k2 == 1:
        return weights
    return by_rows(query_expansion, n, graph.indices[:, :k2].copy(), *weights)


def softmax_rows(rows: int, row: np.ndarray, column: np.ndarray, similarity: np.ndarray) -> Csr:
    """V from pairs (row, column, cosine): softmax(-d^2) in each row, d^2 = 2 - 2 cos."""
    order = np.argsort(row, kind="stable")
    row, column = row[order], column[order]
    weight = np.exp(2.0 * similarity[order].astype(np.float64) - 2.0)
    weight /= np.bincount(row, weight, minlength=rows)[row]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(row, minlength=rows))])
    return indptr, column.astype(np.int32), weight.astype(np.float32)
