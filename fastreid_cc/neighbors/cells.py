"""Approximate search for large sets: a cell of a k-means is multiplied with the cells near it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..kernels import Progress, num_threads, run_chunks
from ..registry import NEIGHBORS
from ..structures import KnnGraph
from ._precision import PRECISIONS, Operand, has_bfloat16_units
from ._ranking import rank_all
from .exact import Collector
from .faiss_search import require_faiss

_BLOCK = 1024  # rows per side of a product
_MEAN_CELL = 1000  # images per cell, with LISTS 0


class _CellCollector(Collector):
    """Candidates of some rows among the cells near theirs.

    Args:
        operand: the data set, ordered by cell.
        asked: i64 [M], ascending places in that order.
        k: neighbours.
        bounds: i64 [cells + 1], first place of each cell.
        near: per cell, the cells it is multiplied with, its own first.
    """

    def __init__(
        self,
        operand: Operand,
        asked: np.ndarray,
        k: int,
        bounds: np.ndarray,
        near: list[np.ndarray],
    ) -> None:
        super().__init__(operand, asked, k, _BLOCK)
        self.bounds, self.near = bounds, near

    def blocks(self) -> list[tuple[range, range, bool]]:
        """(rows asked, rows of the data set, False), a cell's own rows first."""
        made = []
        edges = np.searchsorted(self.who, self.bounds)
        for cell, others in enumerate(self.near):
            for a in _split(edges[cell], edges[cell + 1]):
                made += [
                    (a, b, False)
                    for other in others
                    for b in _split(self.bounds[other], self.bounds[other + 1])
                ]
        return made


def _split(start: int, stop: int) -> list[range]:
    return [range(at, min(at + _BLOCK, int(stop))) for at in range(int(start), int(stop), _BLOCK)]


@NEIGHBORS.register("cells")
class CellSearch:
    """Inverted lists searched by blocks: a cell's images are compared with those of near cells.

    Each image is compared with `share` of the data set: its own cell and the cells whose centres
    are most like its own. Within them the search is exact, by the same products, error bounds and
    ranking as `exact`; what it can miss is an image in a far cell. An inverted file compares the
    same images one query at a time; whole cells at a time are matrix products, which run at the
    processor's full speed.

    Args:
        lists: cells; 0 = one per 1,000 images.
        share: of the data set each image is compared with, in (0, 1]; 1 is the exact search. Where
            identities have fewer images than k, a small share merges clusters (docs/labels.md).
        precision: of the product: "float32", "bfloat16", or "auto" = bfloat16 where the processor
            multiplies it faster.
        seed: of the k-means (faiss), which trains on at most 64 images per cell.

    Cost: 2 M N D share operations. Memory beyond the features: a copy in order of cells (4 N D,
    and with bfloat16 2 N D more), as much again of the rows asked for, 8 (k + 100) M of candidates.
    """

    def __init__(
        self, *, lists: int = 0, share: float = 0.1, precision: str = "auto", seed: int = 1
    ) -> None:
        if lists < 0:
            raise ValueError(f"CC.NEIGHBORS.CELLS.LISTS={lists} must be 0 (auto) or more")
        if not 0 < share <= 1:
            raise ValueError(f"CC.NEIGHBORS.CELLS.SHARE={share} must lie in (0, 1]")
        if precision not in PRECISIONS:
            raise ValueError(
                f"CC.NEIGHBORS.CELLS.PRECISION={precision!r} must be one of {PRECISIONS}"
            )
        self.lists, self.share, self.precision, self.seed = lists, share, precision, seed

    def bytes_needed(self, images: int, size: int, k: int) -> int:
        """Estimate of the memory beyond the features."""
        return images * (8 * (2 * k + 196) + 12 * k + 12 * size)

    def __call__(
        self,
        features: Tensor,
        k: int,
        rows: range | None = None,
        progress: Progress | None = None,
    ) -> KnnGraph:
        """The k nearest images found for each of `rows` (default: all), the image itself first.

        Args:
            features: f32 [N, D], unit rows; searched on the CPU.
            k: neighbours per image, itself included, at most N.
            rows: slice of the data set, step 1.
            progress: called with ("neighbors", blocks done, blocks in all).
        Raises:
            ValueError: if k is not in [1, N]. ImportError: without faiss.
        """
        n = len(features)
        rows = range(n) if rows is None else rows
        if not 1 <= k <= n:
            raise ValueError(f"k={k} neighbours asked of {n} images; k must lie in [1, {n}]")
        host = np.ascontiguousarray(features.detach().cpu().numpy())
        cells, centres = self._cells(host)
        order = np.argsort(cells, kind="stable")
        bounds = np.searchsorted(cells[order], np.arange(len(centres) + 1))
        near = _near_cells(centres, np.diff(bounds), max(k, int(np.ceil(self.share * n))))
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)
        asked = np.sort(place[rows.start : rows.stop])
        ordered = host[order]
        low = self.precision == "bfloat16" or (
            self.precision == "auto" and has_bfloat16_units(torch.device("cpu"))
        )
        operand = Operand(torch.from_numpy(ordered), low)
        search = _CellCollector(operand, asked, k, bounds, near)
        indices, similarity, left = search.run(ordered, progress)
        if len(left):  # too many near the k-th best to tell apart, e.g. duplicates
            found = indices[left], similarity[left]
            run_chunks(rank_all, len(left), asked[left], ordered, *found, rows_per_chunk=16)
            indices[left], similarity[left] = found
        back = place[rows.start : rows.stop]
        back = np.searchsorted(asked, back)
        return _by_index(order[indices[back]], similarity[back])

    def _cells(self, host: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cell of each image, i64 [N], and the cells' centres, f32 [cells, D]."""
        faiss = require_faiss()
        faiss.omp_set_num_threads(num_threads())
        n, size = host.shape
        lists = min(self.lists or max(1, n // _MEAN_CELL), n)
        means = faiss.Kmeans(
            size, lists, niter=10, seed=self.seed, spherical=True,
            min_points_per_centroid=1, max_points_per_centroid=64,
        )  # fmt: skip
        means.train(host)
        return means.index.search(host, 1)[1][:, 0], means.centroids


def _near_cells(centres: np.ndarray, sizes: np.ndarray, wanted: int) -> list[np.ndarray]:
    """Per cell, the likest cells, its own first, until they hold `wanted` images."""
    likeness = centres @ centres.T
    np.fill_diagonal(likeness, np.inf)
    ranked = np.argsort(-likeness, axis=1, kind="stable")
    counts = np.cumsum(sizes[ranked], axis=1)
    return [
        row[: int(np.searchsorted(count, wanted)) + 1]
        for row, count in zip(ranked, counts, strict=True)
    ]


def _by_index(indices: np.ndarray, similarity: np.ndarray) -> KnnGraph:
    """Puts equal similarities in order of index; the image itself stays first."""
    tied = np.flatnonzero((similarity[:, 1:-1] == similarity[:, 2:]).any(axis=1))
    for row in tied:
        sequence = np.lexsort((indices[row, 1:], -similarity[row, 1:])) + 1
        indices[row, 1:], similarity[row, 1:] = indices[row, sequence], similarity[row, sequence]
    return KnnGraph(indices, similarity)
