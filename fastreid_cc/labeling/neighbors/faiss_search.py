"""faiss indexes behind the neighbour-search contract: flat (exact), IVF and HNSW (approximate).

faiss proposes candidates; their similarities are computed anew and ordered as in the exact search,
so what an approximate index can get wrong is only which images it proposes. Recall of the true 30
neighbours with the defaults, measured by benchmarks/labels.py, is in docs/labels.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ...registry import NEIGHBORS
from ...structures import KnnGraph, Progress
from ..kernels import num_threads, run_chunks
from ._ranking import rank_proposed
from .base import Array, NeighborSearch, Rows

_BATCH = 16384  # queries per call: progress is shown, and Ctrl-C works, in between


def require_faiss() -> Any:
    """The faiss package.

    Raises:
        ImportError: saying how to do without, if it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "This neighbour search needs faiss: pip install faiss-cpu (or faiss-gpu), "
            'or set CC.NEIGHBORS.NAME="exact", which needs nothing more.'
        ) from error
    return faiss


class _FaissSearch(NeighborSearch):
    """Shared part: build the index on all rows, query the asked ones, rank what comes back."""

    spare = 2  # candidates beyond k: ties and the image itself

    def _index(self, faiss: Any, features: np.ndarray) -> Any:
        """The faiss index of features f32 [N, D]; each search builds its own."""
        raise NotImplementedError

    def bytes_needed(self, images: int, size: int, k: int) -> int:
        """Memory beyond the features: the index holds a copy of them."""
        return images * (4 * size + 20 * k)

    def search(
        self, features: Tensor, k: int, rows: Rows, progress: Progress | None, **prepared: Array
    ) -> KnnGraph:
        """On the CPU. Rows for which the index finds fewer than k images are searched exhaustively.

        Raises:
            ImportError: without faiss.
        """
        faiss = require_faiss()
        n, asked = len(features), np.asarray(rows)
        host = np.ascontiguousarray(features.cpu().numpy())
        faiss.omp_set_num_threads(num_threads())
        index = self._index(faiss, host)
        indices = np.empty((len(asked), k), np.int64)
        similarity = np.empty((len(asked), k), np.float32)
        for at in range(0, len(asked), _BATCH):
            who = asked[at : at + _BATCH]
            stop = at + len(who)
            found = index.search(host[who], min(n, k + self.spare))[1].astype(np.int32)
            part = indices[at:stop], similarity[at:stop]
            run_chunks(rank_proposed, len(who), who, host, found, *part)
            if progress:
                progress("neighbors", stop, len(asked))
        return KnnGraph(indices, similarity)


@NEIGHBORS.register("faiss_flat")
class FaissFlat(_FaissSearch):
    """Exhaustive search by faiss (IndexFlatIP): exact up to its float32 rounding at the k-th place.

    Cost: 2 M N D operations; the index holds a copy of the features.

    >>> rows = torch.eye(3).repeat(2, 1)
    >>> FaissFlat()(rows, 2).indices[:, 1].tolist()
    [3, 4, 5, 0, 1, 2]
    """

    def _index(self, faiss: Any, features: np.ndarray) -> Any:
        index = faiss.IndexFlatIP(features.shape[1])
        index.add(features)
        return index


@NEIGHBORS.register("faiss_ivf")
class FaissIVF(_FaissSearch):
    """Inverted lists (IndexIVFFlat): each query looks through `probes` of `lists` cells.

    Args:
        lists: number of cells; 0 = 4 sqrt(N).
        probes: cells searched per query; 0 = a tenth of them. Too few do more harm than missing
            neighbours: where identities have fewer than k images, those of the few cells become
            each other's reciprocal neighbours, and clusters merge (100,000 planted images of 5,814
            identities: ARI 0.19 with 16 of 1,264 cells, 0.999 with 128).
        seed: seed of the cells' k-means, which trains on at most 64 images per cell.

    Cost: about 2 M N D probes / lists operations; the index holds a copy of the features.

    >>> rows = torch.eye(3).repeat(2, 1)
    >>> FaissIVF()(rows, 2).indices[:, 1].tolist()
    [3, 4, 5, 0, 1, 2]
    """

    limits = {"lists": "[0, inf)", "probes": "[0, inf)", "seed": "[0, inf)"}

    def __init__(self, *, lists: int = 0, probes: int = 0, seed: int = 1) -> None:
        self.lists = lists
        self.probes = probes
        self.seed = seed

    def _index(self, faiss: Any, features: np.ndarray) -> Any:
        n, size = features.shape
        lists = min(self.lists or max(1, int(4 * n**0.5)), max(1, n // 4))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = self.seed
        index.cp.niter = 10
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = 64
        index.train(features)
        index.add(features)
        index.nprobe = min(self.probes or max(16, lists // 10), lists)
        return index


@NEIGHBORS.register("faiss_hnsw")
class FaissHNSW(_FaissSearch):
    """A navigable small-world graph (IndexHNSWFlat).

    The graph depends on the order in which threads add images: two runs may differ unless one
    thread is used.

    Args:
        links: neighbours per node and level (M).
        ef_construction: candidates kept while building the graph.
        ef_search: candidates kept per query, raised to k where it is less; recall rises with it.

    Cost: about N log N distance computations with random access; 4 D + 8 links bytes per image.

    >>> rows = torch.eye(3).repeat(2, 1)
    >>> FaissHNSW()(rows, 2).indices[:, 1].tolist()
    [3, 4, 5, 0, 1, 2]
    """

    limits = {"links": "[2, inf)", "ef_construction": "[2, inf)", "ef_search": "[2, inf)"}

    def __init__(self, *, links: int = 32, ef_construction: int = 80, ef_search: int = 96) -> None:
        self.links = links
        self.ef_construction = ef_construction
        self.ef_search = ef_search

    def _index(self, faiss: Any, features: np.ndarray) -> Any:
        index = faiss.IndexHNSWFlat(features.shape[1], self.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        index.add(features)
        index.hnsw.efSearch = max(self.ef_search, 64)
        return index
