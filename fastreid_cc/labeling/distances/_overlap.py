"""Jaccard distances of the weights V: the pairs near enough to matter, each computed once."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from ..kernels import jit
from ._sparse import Csr, as_scipy, by_rows, grow, mirrored, transposed


@jit
def _first_after(indices, start, stop, row):
    """Position of the first entry >= row among the ascending indices[start:stop]."""
    while start < stop:
        middle = (start + stop) >> 1
        if indices[middle] < row:
            start = middle + 1
        else:
            stop = middle
    return start


@jit
def jaccard_pairs(start, stop, v, by_column, limit, low):
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
        out_indices = grow(out_indices, at + count)
        out_values = grow(out_values, at + count)
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


def sparse_jaccard(weights: Csr, limit: float, low: int = 0) -> tuple[Csr, Csr]:
    """Pairs i < j (j >= low) at most `limit` apart.

    Args:
        weights: V, one row per image.
        limit: largest distance, at most 1; pairs without a common column (distance 1) are left out.
        low: if above 0, rows i below it and columns j from it on.
    Returns:
        (strict upper triangle, its transpose), columns ascending in both.
    """
    n = len(weights[0]) - 1
    by_column = transposed(as_scipy(weights))
    rarest = np.argsort(np.diff(by_column[0]), kind="stable").astype(np.int32)
    indptr, places, values = transposed(as_scipy(by_column)[rarest])
    bound = np.float32(limit)
    walked = indptr, rarest[places], values  # in each row the rarest column first
    pairs = by_rows(jaccard_pairs, low or n, walked, by_column, bound, low)
    lower = transposed(sp.csr_array(pairs[::-1], shape=(len(pairs[0]) - 1, n)))
    return transposed(as_scipy(lower)), lower


def jaccard_graph(weights: Csr, max_distance: float) -> sp.csr_array:
    """The distances of V's rows up to `max_distance`: f32 [N, N], symmetric, zeros stored."""
    upper, lower = sparse_jaccard(weights, max_distance)
    return as_scipy(mirrored(lower, upper))
