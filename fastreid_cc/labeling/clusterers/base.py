"""What every clusterer does: features, neighbours or distances in, pseudo-labels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np

from ...labels.numbering import number_by_first_image
from ...registry import CLUSTERERS, Part

X = TypeVar("X")  # tensor of features, KnnGraph, or sparse distances


class Clusterer(Part, Generic[X]):
    """Base of the clusterers. A subclass writes `consumes` and `cluster`.

    Attributes:
        consumes: what it clusters: "features", "neighbors" or "distances".
        neighbors_needed: neighbours per image that a clusterer of neighbours needs, at most N.
        eps: radius of a clusterer of distances, None where it has none.
        auto_rho: if above 0, the first labelling sets the radius by `labeling.eps.automatic_eps`
            with this share of the pairs, and `eps` is not used.

    >>> class OneCluster(Clusterer):
    ...     consumes = "features"
    ...
    ...     def cluster(self, x, eps):
    ...         return np.zeros(len(x))
    >>> OneCluster().fit_predict(np.eye(3))
    [array([0, 0, 0])]
    """

    consumes: ClassVar[Literal["features", "neighbors", "distances"]]
    neighbors_needed: int = 0
    eps: float | None = None
    auto_rho: float = 0.0

    def cluster(self, x: X, eps: float | None) -> np.ndarray:
        """Clusters once.

        Args:
            x: what `consumes` says: "features": tensor f32 [N, D], unit rows, on any device;
                "neighbors": `KnnGraph` [N, k], k = `neighbors_needed` or N if that is less;
                "distances": CSR f32 [N, N] as a `Distance` gives it, cut at `eps` or beyond.
            eps: the radius; None for a clusterer that has none.
        Returns:
            integer [N]; negative = outlier, the clusters under any numbers.
        """
        raise NotImplementedError

    def fit_predict(self, x: X, radii: Sequence[float | None] = (None,)) -> list[np.ndarray]:
        """Labels at every radius that a labelling needs, from one graph: one call, not several.

        Override it where clusterings at several radii can share work.

        Args:
            x: see `cluster`. Not changed.
            radii: the radii; None is the clusterer's own.
        Returns:
            for each radius, i64 [N]: -1 = outlier, otherwise 0..C-1, numbered by first image.
        Raises:
            ValueError: for a radius where the clusterer has none.
        """
        if self.eps is None and any(radius is not None for radius in radii):
            raise ValueError(f"{type(self).__name__} has no eps to change")
        values = [self.eps if radius is None else radius for radius in radii]
        return [number_by_first_image(self.cluster(x, value)) for value in values]


CLUSTERERS.base = Clusterer
