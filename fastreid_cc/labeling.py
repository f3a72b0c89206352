"""Features in, pseudo labels out: neighbours, distances, clusters, refinement. No fastreid needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from . import clusterers, distances, neighbors  # noqa: F401  (registers the parts)
from .registry import CLUSTERERS, DISTANCES, NEIGHBORS
from .structures import PseudoLabels


def unit_rows(features: np.ndarray | Tensor) -> Tensor:
    """Float32 [N, D] scaled to unit length; refuses rows that are zero or not finite."""
    rows = torch.as_tensor(features)
    if rows.ndim != 2 or not rows.dtype.is_floating_point:
        raise ValueError(
            f"features must be floating point [N, D], found {rows.dtype} {list(rows.shape)}"
        )
    rows = rows.detach().to(torch.float32)
    norms = rows.double().norm(dim=1)
    bad = torch.nonzero(~torch.isfinite(norms) | (norms == 0))[:, 0].tolist()
    if bad:
        raise ValueError(f"features rows {bad[:10]} ({len(bad)} in all) are zero or not finite")
    return (rows / norms[:, None].float()).contiguous()


class PseudoLabeler:
    """Labels a data set from its features."""

    def __init__(
        self,
        *,
        neighbors: Any = None,
        distance: Any = None,
        clusterer: Any = None,
        refiners: Sequence[Any] = (),
        max_eps: float | None = None,
    ) -> None:
        self.neighbors = neighbors or NEIGHBORS.get("exact")()
        self.distance = distance or DISTANCES.get("jaccard")()
        self.clusterer = clusterer or CLUSTERERS.get("dbscan")()
        self.refiners = list(refiners)
        self.max_eps = max_eps
        self._graph: sp.csr_array | None = None
        self._cameras: np.ndarray | None = None

    def __call__(
        self,
        features: np.ndarray | Tensor,
        cameras: np.ndarray | None = None,
        progress: bool = True,
    ) -> PseudoLabels:
        """Labels the images behind `features` [N, D]."""
        rows = unit_rows(features)
        reach = max((getattr(r, "reach", 0.0) for r in self.refiners), default=0.0)
        eps = self.clusterer.eps
        start = time.perf_counter()
        self._cameras = cameras
        self._graph = self.distance(
            rows,
            self.neighbors,
            max_distance=max(self.max_eps or 0.0, eps + reach),
            cameras=cameras,
        )
        seconds = {"distance": time.perf_counter() - start}
        return self._cluster(eps, seconds)

    def _cluster(self, eps: float, seconds: dict[str, float]) -> PseudoLabels:
        start = time.perf_counter()
        labels = self.clusterer.fit_predict(self._graph, eps=eps)
        for refiner in self.refiners:
            labels = refiner.refine(
                labels,
                lambda offset: self.clusterer.fit_predict(self._graph, eps=eps + offset),
                cameras=self._cameras,
            )
        seconds = {**seconds, "cluster": time.perf_counter() - start}
        return PseudoLabels(labels, eps, seconds)

    def relabel(self, eps: float) -> PseudoLabels:
        """Clusters the graph of the last call at another eps."""
        if self._graph is None:
            raise RuntimeError("relabel needs a labelling before it")
        return self._cluster(eps, {})

    def state_dict(self) -> dict[str, Any]:
        """State of the refiners."""
        return {"refiners": [r.state_dict() for r in self.refiners]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        for refiner, entry in zip(self.refiners, state["refiners"], strict=True):
            refiner.load_state_dict(entry)
