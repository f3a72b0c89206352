"""Features in, pseudo labels out: neighbours, distances, clusters, refinement; no fastreid."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..parallel import collectives as distributed
from ..parallel.rank_zero import first_leads
from ..registry import CLUSTERERS, DISTANCES, NEIGHBORS
from ..structures import KnnGraph, Progress, PseudoLabels
from . import clusterers as _clusterers
from . import distances as _distances
from . import neighbors as _neighbors
from . import refiners as _refiners
from .eps import automatic_eps
from .memory_budget import explain_out_of_memory, refuse_if_too_large

FAMILIES = (_neighbors, _distances, _clusterers, _refiners)  # importing them registers the parts
AUTO_EPS_CUT = 0.9  # radius of the graph that the automatic eps is taken from
_ROWS = 8192


def unit_rows(features: np.ndarray | Tensor) -> Tensor:
    """Float32 rows of unit length; the input itself if it is that already, else a copy.

    Args:
        features: floating point [N, D].
    Raises:
        ValueError: for another shape or dtype, or naming the rows that are zero or not finite.
    """
    rows = torch.as_tensor(features).detach()
    if rows.ndim != 2 or not rows.dtype.is_floating_point:
        raise ValueError(
            f"features must be floating point [N, D], found {rows.dtype} {list(rows.shape)}"
        )
    norms = torch.cat(
        [torch.linalg.vector_norm(part.double(), dim=1) for part in rows.split(_ROWS)]
        or [torch.empty(0, dtype=torch.float64)]
    )
    bad = torch.nonzero(~torch.isfinite(norms) | (norms < 1e-30))[:, 0].tolist()
    if bad:
        raise ValueError(
            f"features: {len(bad)} of {len(rows)} rows are zero or not finite: rows "
            + ", ".join(map(str, bad[:10]))
            + (", ..." if len(bad) > 10 else "")
        )
    if rows.dtype == torch.float32 and bool(((norms - 1).abs() < 1e-6).all()):
        return rows.contiguous()
    out = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
    for at in range(0, len(rows), _ROWS):
        part = slice(at, at + _ROWS)
        out[part] = (rows[part].double() / norms[part, None]).float()
    return out


class _Bars:
    """One tqdm bar per stage, on a terminal and on rank 0; otherwise nothing."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted and sys.stderr.isatty() and distributed.rank() == 0
        self.bars: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self.wanted or total < 2:
            return
        if stage not in self.bars:
            from tqdm import tqdm

            self.bars[stage] = tqdm(total=total, desc=stage, leave=False, file=sys.stderr)
        bar = self.bars[stage]
        if done < bar.n or total != bar.total:
            bar.reset(total)
        bar.update(done - bar.n)

    def close(self) -> None:
        for bar in self.bars.values():
            bar.close()


class _TimedSearch:
    """A neighbour search that adds up its seconds."""

    def __init__(self, search: Any) -> None:
        self.search, self.seconds = search, 0.0

    def __call__(
        self,
        features: Tensor,
        k: int,
        rows: range | None = None,
        progress: Progress | None = None,
    ) -> KnnGraph:
        start = time.perf_counter()
        graph: KnnGraph = self.search(features, k, rows=rows, progress=progress)
        self.seconds += time.perf_counter() - start
        return graph


class PseudoLabeler:
    """Labels a data set from its features, computing only what the clusterer consumes.

    Args:
        neighbors: a neighbour search (default: exact).
        distance: a distance (default: Jaccard, k1 30, k2 6); not used by a clusterer that consumes
            features or neighbours.
        clusterer: a clusterer (default: DBSCAN, eps 0.6, min_samples 4).
        refiners: applied to the labels in order.
        max_eps: `relabel` may go up to this. The graph is cut at the larger of it and eps, plus
            what the refiners add, at most 1.
        distributed: every process of the group calls with the same features; the first makes the
            labels, each searches its slice of the neighbours, and all get the labels, or the error.
            The graph for `relabel` and the refiners' state are the first's. Otherwise only this
            process works.

    Two calls with the same features give the same bytes, whatever the number of threads or
    processes (approximate faiss searches excepted).
    """

    def __init__(
        self,
        *,
        neighbors: Any = None,
        distance: Any = None,
        clusterer: Any = None,
        refiners: Sequence[Any] = (),
        max_eps: float | None = None,
        distributed: bool = False,
    ) -> None:
        self.neighbors = neighbors or NEIGHBORS.get("exact")()
        self.distance = distance or DISTANCES.get("jaccard")()
        self.clusterer = clusterer or CLUSTERERS.get("dbscan")()
        self.refiners = list(refiners)
        self.max_eps = max_eps
        self.distributed = distributed
        self.eps: float | None = getattr(self.clusterer, "eps", None)
        self._automatic = getattr(self.clusterer, "auto_rho", 0.0) > 0
        if self._automatic:
            self.eps = None  # set by the first labelling
        if max_eps is not None and not max_eps > 0:
            raise ValueError(f"max_eps={max_eps} must be above 0")
        if self.eps is None and not self._automatic and self._reach > 0:
            raise ValueError(
                f"{type(self.refiners[0]).__name__} clusters at several eps, but "
                f"{type(self.clusterer).__name__} has none; use a clusterer that consumes distances"
            )
        self._graph: sp.csr_array | None = None
        self._cut = 0.0
        self._cameras: np.ndarray | None = None

    @property
    def _reach(self) -> float:
        return max((float(refiner.reach) for refiner in self.refiners), default=0.0)

    def __call__(
        self,
        features: np.ndarray | Tensor,
        cameras: np.ndarray | None = None,
        progress: bool = True,
    ) -> PseudoLabels:
        """Labels the images behind the features.

        Args:
            features: floating point [N, D], array or tensor; scaled to unit length here.
            cameras: integer [N], for the parts that use cameras.
            progress: show bars, if standard error is a terminal.
        Raises:
            ValueError: for zero or non-finite rows (naming them), a wrong dtype or shape.
            MemoryError: with advice: before the start, if the estimate exceeds the free memory, or
                when an allocation fails.
        """
        images, size = (*getattr(features, "shape", ()), 0, 0)[:2]
        with explain_out_of_memory(images, size):
            rows = unit_rows(features)
        if cameras is not None and np.shape(cameras) != (len(rows),):
            raise ValueError(f"cameras must be [{len(rows)}], found {list(np.shape(cameras))}")
        self._graph, self._cameras = None, None if cameras is None else np.asarray(cameras)
        if len(rows) == 0:
            return PseudoLabels(np.empty(0, np.int64), self.eps)
        if self.distributed:
            return first_leads(self.neighbors, rows, lambda s: self._label(rows, s, progress))
        return self._label(rows, self.neighbors, progress)

    def _label(self, rows: Tensor, search: Any, progress: bool) -> PseudoLabels:
        refuse_if_too_large(self.bytes_needed(len(rows), rows.shape[1]), *rows.shape)
        bars = _Bars(progress)
        try:
            with explain_out_of_memory(*rows.shape):
                return self._stages(rows, _TimedSearch(search), bars)
        finally:
            bars.close()

    def _stages(self, rows: Tensor, search: _TimedSearch, bars: _Bars) -> PseudoLabels:
        start = time.perf_counter()
        consumes = self.clusterer.consumes
        if consumes == "distances":
            self._cut = self._radius()
            self._graph = self.distance(
                rows, search, max_distance=self._cut, cameras=self._cameras, progress=bars
            )
            if self.eps is None:
                self.eps = automatic_eps(self._graph, self.clusterer.auto_rho, self._cut)
                self._check(self.eps + self._reach)
        elif consumes == "neighbors":
            graph = search(rows, min(self.clusterer.k1, len(rows)), progress=bars)
        done = time.perf_counter()
        seconds = {"neighbors": search.seconds, "distance": done - start - search.seconds}
        if consumes == "distances":
            return self._cluster(self.eps, seconds)
        labels = self.clusterer.fit_predict(rows if consumes == "features" else graph)
        return self._refine(labels, None, seconds, done)

    def _radius(self) -> float:
        eps = AUTO_EPS_CUT if self.eps is None else self.eps
        return min(1.0, max(self.max_eps or 0.0, eps) + self._reach)

    def _check(self, eps: float) -> None:
        if self._cut < 1 and eps > self._cut + 1e-9:
            raise ValueError(
                f"eps={eps:.4g} is above the radius {self._cut:.4g} the distances were cut at; set "
                "max_eps and label again"
            )

    def _fit(self, eps: float) -> np.ndarray:
        self._check(eps)
        return np.asarray(self.clusterer.fit_predict(self._graph, eps=eps))

    def _cluster(self, eps: float | None, seconds: dict[str, float]) -> PseudoLabels:
        assert eps is not None
        start = time.perf_counter()
        return self._refine(self._fit(eps), eps, seconds, start)

    def _refine(
        self, labels: np.ndarray, eps: float | None, seconds: dict[str, float], start: float
    ) -> PseudoLabels:
        relabel: Callable[[float], np.ndarray] = lambda offset: self._fit((eps or 0.0) + offset)  # noqa: E731
        middle = time.perf_counter()
        for refiner in self.refiners:
            labels = refiner.refine(labels, relabel, cameras=self._cameras)
        stages = {**seconds, "cluster": middle - start}
        if self.refiners:
            stages["refine"] = time.perf_counter() - middle
        return PseudoLabels(labels, eps, stages)

    def relabel(self, eps: float) -> PseudoLabels:
        """Clusters (and refines) the graph of the last call at another eps.

        Raises:
            RuntimeError: before the first call.
            ValueError: if the clusterer has no eps, or if `eps` (plus what refiners add) is above
                the radius the graph was cut at.
        """
        if self.clusterer.consumes != "distances":
            raise ValueError(f"{type(self.clusterer).__name__} has no eps to change")
        if self._graph is None:
            raise RuntimeError("relabel clusters the graph of the last labelling; there is none")
        if not eps > 0:
            raise ValueError(f"eps={eps} must be above 0")
        self._check(eps + self._reach)
        return self._cluster(eps, {})

    def bytes_needed(self, images: int, size: int) -> int:
        """Estimate of the memory that labelling takes beyond unit f32 features [images, size]."""
        consumes = self.clusterer.consumes
        k = getattr(self.clusterer, "k1", 0)
        needed = 0
        if consumes == "distances":
            k = getattr(self.distance, "neighbors_needed", getattr(self.distance, "k", 0))
            if hasattr(self.distance, "bytes_needed"):
                needed += self.distance.bytes_needed(images)
        if k and consumes != "features" and hasattr(self.neighbors, "bytes_needed"):
            needed += self.neighbors.bytes_needed(images, size, min(k, images))
        return needed

    def state_dict(self) -> dict[str, Any]:
        """The automatic eps and the refiners' state: numbers and tensors only."""
        return {
            "eps": self.eps if self._automatic else None,
            "refiners": [refiner.state_dict() for refiner in self.refiners],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`.

        Raises:
            ValueError: if the refiners are not those that were saved.
        """
        if len(state["refiners"]) != len(self.refiners):
            raise ValueError(
                f"the state holds {len(state['refiners'])} refiners, the labeler has "
                f"{len(self.refiners)}"
            )
        if self._automatic and state["eps"] is not None:
            self.eps = float(state["eps"])
        for refiner, entry in zip(self.refiners, state["refiners"], strict=True):
            refiner.load_state_dict(entry)
