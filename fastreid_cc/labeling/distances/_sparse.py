"""Sparse matrices for the compiled kernels: CSR as (indptr i64 [N+1], indices i32, values f32)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import jit, run_chunks

Csr = tuple[np.ndarray, np.ndarray, np.ndarray]


@jit
def grow(array, needed):  # type: ignore[no-untyped-def]
    """The array, or a copy with room for `needed` entries."""
    if needed <= array.shape[0]:
        return array
    larger = np.empty(max(needed, 2 * array.shape[0]), array.dtype)
    larger[: array.shape[0]] = array
    return larger


@jit
def transposed(indptr, indices, values, columns, order):  # type: ignore[no-untyped-def]
    """The transpose of a CSR matrix, by counting; each row lists its columns in `order`."""
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
