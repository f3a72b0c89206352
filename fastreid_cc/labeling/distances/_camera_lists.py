"""Neighbour lists within a camera and across cameras, from any neighbour search."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...structures import KnnGraph, Progress

_ROWS = 256  # images searched together when their first lists were too short


def _empty(rows: int, k: int) -> KnnGraph:
    """Lists without entries: index -1, similarity -2."""
    return KnnGraph(np.full((rows, k), -1, np.int64), np.full((rows, k), -2, np.float32))


def intra_camera(features: Tensor, search: Any, camera: np.ndarray, k: int) -> KnnGraph:
    """The k nearest images of the same camera, itself first; -1 where the camera has fewer.

    Args:
        features: f32 [N, D], unit rows.
        search: a neighbour search.
        camera: i64 [N], 0..cameras-1.
    """
    lists = _empty(len(features), k)
    for name in range(int(camera.max()) + 1):
        own = np.flatnonzero(camera == name)
        found = search(features[torch.from_numpy(own)], min(k, len(own)))
        lists.indices[own, : found.k] = own[found.indices]
        lists.similarity[own, : found.k] = found.similarity
    return lists


def _first_others(
    lists: KnnGraph, who: np.ndarray, found: np.ndarray, similarity: np.ndarray, camera: np.ndarray
) -> np.ndarray:
    """Writes the first k images of other cameras in `found`; returns how many each row got."""
    other = camera[found] != camera[who][:, None]
    order = np.argsort(~other, axis=1, kind="stable")[:, : lists.k]
    kept = np.take_along_axis(other, order, 1)
    width = order.shape[1]
    lists.indices[who, :width] = np.where(kept, np.take_along_axis(found, order, 1), -1)
    lists.similarity[who, :width] = np.where(kept, np.take_along_axis(similarity, order, 1), -2)
    return np.asarray(kept.sum(axis=1))


def inter_camera(
    features: Tensor,
    search: Any,
    camera: np.ndarray,
    k: int,
    guess: int,
    progress: Progress | None = None,
) -> KnnGraph:
    """The k nearest images of other cameras; -1 where there are fewer.

    One search of `guess` neighbours serves most images. For the rest, a few at a time, the search
    is repeated among the images of other cameras and those few alone, where the first k + few must
    contain the answer.
    """
    n = len(features)
    lists = _empty(n, k)
    found = search(features, min(guess, n), progress=progress)
    got = _first_others(lists, np.arange(n), found.indices, found.similarity, camera)
    available = n - np.bincount(camera)[camera]
    short = np.flatnonzero(got < np.minimum(k, available))
    for name in np.unique(camera[short]):
        others = np.flatnonzero(camera != name)
        own = short[camera[short] == name]
        for at in range(0, len(own), _ROWS):
            few = own[at : at + _ROWS]
            pool = np.concatenate([few, others])
            part = search(
                features[torch.from_numpy(pool)],
                min(k + len(few), len(pool)),
                rows=range(len(few)),
            )
            _first_others(lists, few, pool[part.indices], part.similarity, camera)
    return lists


def reciprocal_pairs(lists: KnnGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (i, j, cosine) with j in i's list and i in j's; both directions are given."""
    n, k = lists.indices.shape
    kept = lists.indices.ravel() >= 0
    rows, columns = np.repeat(np.arange(n), k)[kept], lists.indices.ravel()[kept]
    mutual = np.isin(rows * n + columns, columns * n + rows)
    return rows[mutual], columns[mutual], lists.similarity.ravel()[kept][mutual]
