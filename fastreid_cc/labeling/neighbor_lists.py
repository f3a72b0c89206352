"""Makes the neighbour searches of a labelling: those that its distance or clusterer declares.

Every process of a group searches its part of the rows, and the first puts the parts together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..parallel.collectives import rank, world_size
from ..parallel.rank_zero import gather_on_rank0, run_on_rank0
from ..structures import KnnGraph, Progress, Search
from .neighbors.base import Array, NeighborSearch, Rows

_ROWS = 256  # images searched together when their first lists were too short


def widest(requests: Sequence[Search]) -> int:
    """Neighbours of the longest list that answering the requests takes; 0 without requests.

    Neighbours of other cameras are read from a search among all images, of twice the neighbours
    that all requests ask for: the nearest images are often of the same camera.

    >>> widest((Search(5, "same_camera"), Search(20, "other_cameras")))
    50
    """
    if any(request.among == "other_cameras" for request in requests):
        return 2 * sum(request.k for request in requests)
    return max((request.k for request in requests), default=0)


def find_neighbors(
    search: NeighborSearch,
    features: Tensor,
    requests: Sequence[Search],
    cameras: np.ndarray | None = None,
    *,
    alone: bool = True,
    progress: Progress | None = None,
) -> list[KnnGraph]:
    """A graph [N, k] for each request, on the first process; an empty list on the others.

    Args:
        search: finds the k nearest among all rows it is given.
        features: f32 [N, D], unit rows, the same on all processes.
        requests: what is asked for.
        cameras: i64 [N] in 0..cameras-1; without them all images are of one camera.
        alone: this process works alone; otherwise all processes of the group call this.
        progress: passed to the searches.
    Raises:
        Exception: on every process, what went wrong on any.

    Cost: that of the searches; one more per 256 images whose `widest` list holds too few images of
    other cameras.

    >>> from fastreid_cc.labeling.neighbors.exact import ExactKNN
    >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> find_neighbors(ExactKNN(), rows, (Search(2),))[0].indices.tolist()
    [[0, 1], [1, 0], [2, 1]]
    """
    camera = np.zeros(len(features), np.int64) if cameras is None else cameras
    together = _Together(search, alone, progress)
    found = []
    for request in requests:
        if request.among == "all":
            found.append(together(features, request.k))
        elif request.among == "same_camera":
            found.append(_same_camera(together, features, camera, request.k))
        else:
            guess = min(widest(requests), len(features))
            found.append(_other_cameras(together, features, camera, request.k, guess))
    return [graph for graph in found if graph is not None]


class _Together:
    """A search that all processes make; the first gets the graph, the others None."""

    def __init__(self, search: NeighborSearch, alone: bool, progress: Progress | None) -> None:
        self.search, self.progress = search, progress
        self.alone = alone or world_size() == 1

    def __call__(self, features: Tensor, k: int, own: np.ndarray | None = None) -> KnnGraph | None:
        """The k nearest of each row of f32 [N, D], or of and among its rows `own`, i64 [M]."""

        def searched(rows: Rows | None, **prepared: Array) -> KnnGraph:
            return self.search(_some(features, own), k, rows, self.progress, **prepared)

        if self.alone or not self.search.splits:
            return self.on_first(lambda: searched(None))
        prepared = run_on_rank0(lambda: self.search.prepare(_some(features, own)))
        images = len(features) if own is None else len(own)
        parts = self.search.parts(images, world_size(), **prepared)
        mine = parts[rank()]
        found = gather_on_rank0(lambda: searched(mine, **prepared) if len(mine) else None)
        return self.on_first(lambda: _joined(parts, found, k))

    def on_first(self, work: Callable[[], KnnGraph]) -> KnnGraph | None:
        """`work()` by the first process alone; what it raises is raised on all."""
        is_first = self.alone or rank() == 0
        found = gather_on_rank0(lambda: work() if is_first else None, alone=self.alone)
        return found[0] if found else None


def _some(features: Tensor, rows: np.ndarray | None) -> Tensor:
    return features if rows is None else features[torch.from_numpy(rows)]


def _joined(parts: list[Rows], found: list[KnnGraph | None], k: int) -> KnnGraph:
    whole = _empty(sum(len(part) for part in parts), k)
    for part, graph in zip(parts, found, strict=True):
        if graph is not None:
            whole.indices[np.asarray(part)] = graph.indices
            whole.similarity[np.asarray(part)] = graph.similarity
    return whole


def _empty(rows: int, k: int) -> KnnGraph:
    """Lists without entries: index -1, similarity -2."""
    return KnnGraph(np.full((rows, k), -1, np.int64), np.full((rows, k), -2, np.float32))


def _same_camera(
    together: _Together, features: Tensor, camera: np.ndarray, k: int
) -> KnnGraph | None:
    """The k nearest images of the same camera, itself first: one search per camera."""
    groups = [np.flatnonzero(camera == name) for name in range(int(camera.max()) + 1)]
    found = [together(features, min(k, len(own)), own) for own in groups]

    def completed() -> KnnGraph:
        lists = _empty(len(features), k)
        for own, graph in zip(groups, found, strict=True):
            assert graph is not None  # this is the first process
            lists.indices[own, : graph.k] = own[graph.indices]
            lists.similarity[own, : graph.k] = graph.similarity
        return lists

    return together.on_first(completed)


def _other_cameras(
    together: _Together, features: Tensor, camera: np.ndarray, k: int, guess: int
) -> KnnGraph | None:
    """The k nearest images of other cameras.

    One search of `guess` neighbours serves most images. For the rest, a few at a time, the first
    process searches among the images of other cameras and those few alone, where the first k + few
    must contain the answer.
    """
    found = together(features, guess)

    def completed() -> KnnGraph:
        assert found is not None  # this is the first process
        n = len(features)
        lists = _empty(n, k)
        got = _first_others(lists, np.arange(n), found, camera)
        available = n - np.bincount(camera)[camera]
        short = np.flatnonzero(got < np.minimum(k, available))
        for name in np.unique(camera[short]):
            others = np.flatnonzero(camera != name)
            own = short[camera[short] == name]
            for at in range(0, len(own), _ROWS):
                few = own[at : at + _ROWS]
                pool = np.concatenate([few, others])
                most, rows = min(k + len(few), len(pool)), range(len(few))
                part = together.search(_some(features, pool), most, rows)
                _first_others(lists, few, KnnGraph(pool[part.indices], part.similarity), camera)
        return lists

    return together.on_first(completed)


def _first_others(
    lists: KnnGraph, who: np.ndarray, found: KnnGraph, camera: np.ndarray
) -> np.ndarray:
    """Writes the first k images of other cameras in `found`; returns how many each row got."""
    other = camera[found.indices] != camera[who][:, None]
    order = np.argsort(~other, axis=1, kind="stable")[:, : lists.k]
    kept = np.take_along_axis(other, order, 1)
    indices = np.take_along_axis(found.indices, order, 1)
    similarity = np.take_along_axis(found.similarity, order, 1)
    width = order.shape[1]
    lists.indices[who, :width] = np.where(kept, indices, -1)
    lists.similarity[who, :width] = np.where(kept, similarity, -2)
    return np.asarray(kept.sum(axis=1))
