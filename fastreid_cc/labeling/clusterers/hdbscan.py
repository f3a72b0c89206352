"""HDBSCAN on the sparse distance graph, by scikit-learn."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ...registry import CLUSTERERS
from .base import Clusterer

_APART = 2.0  # between two dense pieces of the graph; no distance within one exceeds 1
_ALONE = 4.0  # to images that belong to no dense piece: these leave the hierarchy first


def dense_pieces(graph: sp.csr_array, least: int, min_size: int) -> np.ndarray:
    """Connected component of each image among those with `least` neighbours; -1 if under min_size.

    Args:
        graph: CSR [N, N], distances, no image its own neighbour.
        least: neighbours that make an image dense, itself included.
        min_size: images a component must have.
    Returns:
        integer [N].

    >>> pair = sp.csr_array(np.array([[0, 0.1, 0], [0.1, 0, 0], [0, 0, 0]]))
    >>> dense_pieces(pair, least=2, min_size=2).tolist()
    [0, 0, -1]
    """
    dense = np.diff(graph.indptr) + 1 >= least
    keep = sp.diags(dense.astype(np.float64), format="csr")
    piece = connected_components(keep @ graph @ keep, directed=False)[1]
    sizes = np.bincount(piece[dense], minlength=len(piece))
    return np.where(dense & (sizes[piece] >= min_size), piece, -1)


def _completed(graph: sp.csr_array, least: int, min_size: int) -> sp.csr_array:
    """The graph as scikit-learn wants it: one piece, and at least `least` entries in each row.

    Dense pieces are chained at _APART; every other image hangs on the one before it at _ALONE, and
    short rows are filled up with links at _ALONE. An image is its own neighbour at (almost) zero,
    since a stored zero counts as no link.
    """
    n = graph.shape[0]
    piece = dense_pieces(graph, least, min_size)
    names, first = np.unique(piece, return_index=True)
    first = first[names >= 0]
    alone, short = np.flatnonzero(piece < 0), np.flatnonzero(np.diff(graph.indptr) < least)
    hook = np.where(alone > 0, alone - 1, min(1, n - 1))
    after = (short[:, None] + np.arange(1, least + 1)).ravel() % n
    links = sp.csr_array((n, n))
    for a, b, far in (
        (first[:-1], first[1:], _APART),
        (np.concatenate([alone, np.repeat(short, least)]), np.concatenate([hook, after]), _ALONE),
    ):
        both = np.concatenate([a, b]), np.concatenate([b, a])
        more = sp.csr_array((np.ones(len(both[0])), both), shape=graph.shape)
        more.data[:] = far
        links = links + more - more.multiply((links + graph).astype(bool))
    links = links - sp.diags(links.diagonal(), format="csr")
    return sp.csr_array(graph + links + 1e-12 * sp.identity(n, format="csr"))


@CLUSTERERS.register("hdbscan")
class HDBSCAN(Clusterer[sp.csr_array]):
    """HDBSCAN (Campello et al., PAKDD 2013): clusters of any density, no single radius.

    The hierarchy is built from the pairs at most `eps` apart. Pieces of that graph are 2 apart, so
    none of the missing pairs holds a cluster together, and images in no piece are 4 apart from all,
    so that they leave the hierarchy first. The same hierarchy as scikit-learn's on the dense matrix
    with the missing entries set to these (tested); where merges tie, single images may fall to
    either side.

    Args:
        eps: pairs farther apart do not link images.
        min_size: images a cluster must have.
        min_samples: neighbours that define an image's density, itself included.

    Cost: as scikit-learn's; about O(E log E) time for E stored distances, a few copies of them.

    >>> near = np.array([[0, .1, .9, .9], [.1, 0, .9, .9], [.9, .9, 0, .1], [.9, .9, .1, 0]])
    >>> HDBSCAN(min_size=2, min_samples=1).fit_predict(sp.csr_array(near))
    [array([0, 0, 1, 1])]
    """

    consumes = "distances"
    limits = {"eps": "(0, 1]", "min_size": "[2, inf)", "min_samples": "[1, inf)"}

    def __init__(self, *, eps: float = 0.7, min_size: int = 4, min_samples: int = 4) -> None:
        self.eps = eps
        self.min_size = min_size
        self.min_samples = min_samples

    def cluster(self, x: sp.csr_array, eps: float | None) -> np.ndarray:
        """Labels i64 [N] of the images of a graph f32 [N, N], from its pairs up to one radius."""
        from sklearn.cluster import HDBSCAN as SklearnHDBSCAN

        n = x.shape[0]
        if n < max(self.min_size, 2):
            return np.full(n, -1, np.int64)
        rows = np.repeat(np.arange(n), np.diff(x.indptr))
        near = (x.data <= np.float32(eps)) & (rows != x.indices)
        data = np.maximum(x.data[near].astype(np.float64), 1e-9)  # a stored zero is no link there
        graph = sp.csr_array((data, (rows[near], x.indices[near])), shape=x.shape)
        samples = min(self.min_samples, n)
        graph = _completed(graph, samples, self.min_size)
        model = SklearnHDBSCAN(
            min_cluster_size=self.min_size,
            min_samples=samples,
            metric="precomputed",
            metric_params={"max_distance": _ALONE},
            copy=True,
        )
        return np.asarray(model.fit(graph).labels_)
