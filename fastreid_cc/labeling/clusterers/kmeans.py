"""k-means on unit features, by faiss or scikit-learn."""

from __future__ import annotations

import importlib.util

import numpy as np
from torch import Tensor

from ...registry import CLUSTERERS
from .base import Clusterer


@CLUSTERERS.register("kmeans")
class KMeans(Clusterer[Tensor]):
    """A set number of clusters, no outliers (as MMT and DeepCluster cluster).

    Args:
        num_clusters: number of clusters; at most N is used.
        iterations: iterations of Lloyd's algorithm.
        backend: library that does it; "auto" is faiss if it is installed. They start differently,
            so their labels differ.
        seed: seed of the start.

    Cost: 2 N C D operations per iteration; faiss trains on at most 256 images per cluster.

    >>> import torch
    >>> rows = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
    >>> KMeans(num_clusters=2, backend="sklearn").fit_predict(rows)
    [array([0, 0, 1])]
    """

    consumes = "features"
    limits = {
        "num_clusters": "[1, inf)",
        "iterations": "[1, inf)",
        "backend": ("auto", "faiss", "sklearn"),
        "seed": "[0, 4294967295]",
    }

    def __init__(
        self,
        *,
        num_clusters: int = 500,
        iterations: int = 25,
        backend: str = "auto",
        seed: int = 1,
    ) -> None:
        self.num_clusters = num_clusters
        self.iterations = iterations
        self.backend = backend
        self.seed = seed

    def cluster(self, x: Tensor, eps: float | None = None) -> np.ndarray:
        """Labels i64 [N] (fewer than C if a cluster stays empty) of unit rows f32 [N, D]."""
        features = np.ascontiguousarray(x.detach().cpu().numpy(), dtype=np.float32)
        clusters = min(self.num_clusters, len(features))
        if clusters == 0:
            return np.empty(0, np.int64)
        if self._uses_faiss():
            return self._faiss(features, clusters)
        from sklearn.cluster import KMeans as SklearnKMeans

        model = SklearnKMeans(clusters, n_init=1, max_iter=self.iterations, random_state=self.seed)
        return np.asarray(model.fit_predict(features))

    def _uses_faiss(self) -> bool:
        installed = importlib.util.find_spec("faiss") is not None
        if self.backend == "faiss" and not installed:
            raise ImportError(
                'CC.CLUSTER.KMEANS.BACKEND="faiss" needs faiss: pip install faiss-cpu, '
                'or set "sklearn"'
            )
        return installed and self.backend != "sklearn"

    def _faiss(self, features: np.ndarray, clusters: int) -> np.ndarray:
        import faiss

        model = faiss.Kmeans(
            features.shape[1],
            clusters,
            niter=self.iterations,
            seed=self.seed,
            spherical=True,
            min_points_per_centroid=1,
        )
        model.train(features)
        return np.asarray(model.index.search(features, 1)[1][:, 0], dtype=np.int64)
