"""Features in, pseudo labels out: neighbours, distances, clusters, refinement; no fastreid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ..parallel.rank_zero import run_on_rank0
from ..registry import CLUSTERERS, DISTANCES, NEIGHBORS
from ..structures import KnnGraph, PseudoLabels, Search
from . import clusterers as _clusterers
from . import distances as _distances
from . import neighbors as _neighbors
from . import refiners as _refiners
from .clusterers.base import Clusterer
from .collapse import CollapsePolicy, recover_from_collapse
from .distances.base import Distance
from .eps import automatic_eps
from .links import LinkedGraph, Links
from .memory_budget import explain_out_of_memory, refuse_if_too_large
from .neighbor_lists import find_neighbors, widest
from .neighbors.base import NeighborSearch
from .refiners.base import Refiner
from .stage_bars import StageBars
from .unit_rows import unit_rows

FAMILIES = (_neighbors, _distances, _clusterers, _refiners)  # importing them registers the parts
AUTO_EPS_CUT = 0.9  # radius of the graph that the automatic eps is taken from


class PseudoLabeler:
    """Labels a data set from its features, computing only what the clusterer consumes.

    Args:
        neighbors: a neighbour search (default: exact).
        distance: a distance (default: Jaccard, k1 30, k2 6); not used by a clusterer that consumes
            features or neighbours.
        clusterer: a clusterer (default: DBSCAN, eps 0.6, min_samples 4).
        refiners: applied to the labels in order.
        collapse: what to do where too few clusters are found; None leaves the labels as they are.
        distributed: every process of the group calls with the same features; each searches its part
            of the neighbours, the first does the rest, and all get the labels, or the error. The
            refiners' state and an automatic eps are the first's. Otherwise this process works
            alone.

    Raises:
        ValueError: if a refiner clusters at several radii and the clusterer has none.

    Two calls with the same features give the same bytes, whatever the number of threads or
    processes (approximate faiss searches excepted). Nothing of a labelling is kept but the
    refiners' state and an automatic eps.

    >>> a, b = [1.0, 0.0], [0.0, 1.0]
    >>> labeler = PseudoLabeler(distance=DISTANCES.get("jaccard")(k1=4, k2=1))
    >>> labeler(np.array([a, a, a, a, b, b, b, b])).labels
    array([0, 0, 0, 0, 1, 1, 1, 1])
    """

    def __init__(
        self,
        *,
        neighbors: NeighborSearch | None = None,
        distance: Distance | None = None,
        clusterer: Clusterer | None = None,
        refiners: Sequence[Refiner] = (),
        collapse: CollapsePolicy | None = None,
        distributed: bool = False,
    ) -> None:
        self.neighbors: NeighborSearch = neighbors or NEIGHBORS.get("exact")()
        self.distance: Distance = distance or DISTANCES.get("jaccard")()
        self.clusterer: Clusterer = clusterer or CLUSTERERS.get("dbscan")()
        self.refiners = list(refiners)
        self.collapse = collapse
        self.distributed = distributed
        self._automatic = self.clusterer.auto_rho > 0
        self.eps = None if self._automatic else self.clusterer.eps  # automatic: the first sets it
        for refiner in self.refiners:
            if refiner.eps_offsets and self.clusterer.eps is None:
                raise ValueError(
                    f"{type(refiner).__name__} clusters at several eps, but"
                    f" {type(self.clusterer).__name__} has none; use a clusterer that consumes"
                    " distances"
                )

    def __call__(
        self,
        features: np.ndarray | Tensor,
        cameras: np.ndarray | None = None,
        *,
        links: Links | None = None,
        previous: PseudoLabels | None = None,
        progress: bool = True,
    ) -> PseudoLabels:
        """Labels the images behind the features.

        Args:
            features: floating point [N, D], array or tensor; scaled to unit length here. A tensor
                stays on its device until the neighbours are found.
            cameras: integer [N], for the parts that use cameras.
            links: pairs that must, or must not, share a cluster, which the labels honour exactly;
                the same on all processes.
            previous: the labels before, which `collapse` may fall back to.
            progress: show bars, if standard error is a terminal.
        Raises:
            ValueError: for zero or non-finite rows (naming them), a wrong dtype or shape; for links
                with a clusterer that does not consume distances.
            CollapsedError: if `collapse` has no way out.
            MemoryError: with advice: before the start, if the estimate exceeds the free memory, or
                when an allocation fails.
        """
        return self.sweep(features, (), cameras, links=links, previous=previous, progress=progress)[
            0
        ]

    def sweep(
        self,
        features: np.ndarray | Tensor,
        radii: Sequence[float],
        cameras: np.ndarray | None = None,
        *,
        links: Links | None = None,
        previous: PseudoLabels | None = None,
        progress: bool = True,
    ) -> list[PseudoLabels]:
        """Labels at the own radius, then at each of `radii` in this order, all from one graph.

        The other arguments, and the first labels, are those of a call.

        Raises:
            ValueError: as a call, for a radius outside (0, 1], or if the clusterer has none.
        """
        for eps in radii:
            if not 0 < eps <= 1:
                raise ValueError(f"eps={eps} must lie in (0, 1]")
        if links is not None and self.clusterer.consumes != "distances":
            raise ValueError(
                f"{type(self.clusterer).__name__} clusters {self.clusterer.consumes}; links need a"
                " clusterer that consumes distances"
            )
        images, size = (*np.shape(features), 0, 0)[:2]
        with explain_out_of_memory(images, size), StageBars(progress) as bars:
            rows = unit_rows(features)
            if cameras is not None and np.shape(cameras) != (len(rows),):
                raise ValueError(f"cameras must be [{len(rows)}], found {list(np.shape(cameras))}")
            if len(rows) == 0:
                return [PseudoLabels(np.empty(0, np.int64), eps) for eps in (self.eps, *radii)]
            return self._label(rows, cameras, (None, *radii), links, previous, bars)

    def _label(
        self,
        rows: Tensor,
        cameras: np.ndarray | None,
        radii: Sequence[float | None],
        links: Links | None,
        previous: PseudoLabels | None,
        bars: StageBars,
    ) -> list[PseudoLabels]:
        """The labelling, step by step; each step uses only what the steps before gave.

        Features refined by their neighbours have their place after step 1, which is then repeated
        with them; the caller keeps the plain ones.
        """
        alone, numbered = not self.distributed, None
        rows = rows if links is None else links.pooled(rows)
        if cameras is not None:
            numbered = np.unique(cameras, return_inverse=True)[1].astype(np.int64)
        num_cameras = 1 if numbered is None else int(numbered.max()) + 1
        needed = self.bytes_needed(len(rows), rows.shape[1], num_cameras)
        run_on_rank0(lambda: refuse_if_too_large(needed, *rows.shape), alone=alone)

        # 1. Neighbours: what the distance or the clusterer asks for; each process its part.
        requests = self._searches(len(rows), num_cameras)
        start = time.perf_counter()
        graphs = find_neighbors(
            self.neighbors, rows, requests, numbered, alone=alone, progress=bars
        )
        seconds = {"neighbors": time.perf_counter() - start}

        def on_first() -> list[PseudoLabels]:
            # 2. Distances: one sparse graph, cut at the largest radius that may be needed.
            start, largest, linked = time.perf_counter(), 1.0, None
            x: Tensor | KnnGraph | sp.csr_array = rows
            if self.clusterer.consumes == "neighbors":
                x = graphs[0]
            elif self.clusterer.consumes == "distances":
                cut = self._cut(radii)
                x = self.distance(rows, graphs, max_distance=cut, cameras=cameras, progress=bars)
                if self.eps is None:
                    self.eps = automatic_eps(x, self.clusterer.auto_rho, cut, self._margin)
                largest = cut - self._margin if cut < 1 else 1.0
                if links is not None:
                    linked = LinkedGraph(links, x)
                    x = linked.graph
            seconds["distance"] = time.perf_counter() - start

            # 3. and 4. Clusters at all radii in one call on this graph; each refined in turn.
            own = [self.eps if eps is None else eps for eps in radii]
            found = list(self._clustered(rows, x, own, cameras, linked, seconds))

            # 5. Recovery from a collapse: the same again, at the radii the policy allows.
            if self.collapse is not None:
                others = self.collapse.radii_to_try(found[0], largest)
                tried = self._clustered(rows, x, others, cameras, linked, seconds)
                found[0] = recover_from_collapse(found[0], tried, self.collapse, previous)
                if linked is not None:  # labels before may have been made under other links
                    again = linked.labels(found[0].labels, found[0].eps)
                    found[0] = replace(found[0], labels=again)
            return found

        # 6. The first process does steps 2 to 5; all get the labels.
        return run_on_rank0(on_first, alone=alone)

    def _searches(self, images: int, num_cameras: int) -> tuple[Search, ...]:
        if self.clusterer.consumes == "distances":
            return self.distance.searches(images, num_cameras)
        k = min(self.clusterer.neighbors_needed, images)
        return (Search(k),) if self.clusterer.consumes == "neighbors" else ()

    @property
    def _margin(self) -> float:
        """How far beyond a radius the refiners look."""
        return max([0.0, *(offset for r in self.refiners for offset in r.eps_offsets)])

    def _cut(self, radii: Sequence[float | None]) -> float:
        """The largest distance that a clustering may ask for; an automatic eps is not known yet."""
        own = AUTO_EPS_CUT
        if self.eps is not None:
            own = self.eps + (self.collapse.eps_bound if self.collapse else 0.0)
        return min(1.0, max([own, *(eps for eps in radii if eps is not None)]) + self._margin)

    def _clustered(
        self,
        rows: Tensor,
        x: Tensor | KnnGraph | sp.csr_array,
        radii: Sequence[float | None],
        cameras: np.ndarray | None,
        linked: LinkedGraph | None,
        seconds: dict[str, float],
    ) -> Iterator[PseudoLabels]:
        """Labels at each radius: clustered in one call at the first, refined as they are read."""
        start = time.perf_counter()
        offsets = tuple(dict.fromkeys([0.0, *(o for r in self.refiners for o in r.eps_offsets)]))
        wanted = [None if eps is None else eps + offset for eps in radii for offset in offsets]
        labels = iter(self.clusterer.fit_predict(x, wanted))
        stages = {**seconds, "cluster": time.perf_counter() - start}
        for eps in radii:
            start = time.perf_counter()
            at_offset = {offset: next(labels) for offset in offsets}
            if linked is not None:
                at_offset = {o: linked.labels(v, eps and eps + o) for o, v in at_offset.items()}
            refined = at_offset[0.0]
            for refiner in self.refiners:
                refined = refiner.refine_with(rows, refined, at_offset, cameras)
            if self.refiners:
                stages["refine"] = time.perf_counter() - start
            if linked is None:
                yield PseudoLabels(refined, eps, dict(stages))
            else:
                refined = linked.labels(refined, eps)
                yield PseudoLabels(refined, eps, dict(stages), figures=linked.figures)

    def bytes_needed(self, images: int, size: int, num_cameras: int = 1) -> int:
        """Estimate of the memory that labelling takes beyond unit f32 features [images, size]."""
        needed = 0
        if self.clusterer.consumes == "distances":
            needed += self.distance.bytes_needed(images)
        k = min(widest(self._searches(images, num_cameras)), images)
        return needed + (self.neighbors.bytes_needed(images, size, k) if k else 0)

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
