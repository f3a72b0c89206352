import numpy as np
import pytest
import torch
from oracles import labels as oracle

from fastreid_cc.labeling import neighbors  # noqa: F401
from fastreid_cc.labeling.neighbors.cells import CellSearch
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.labeling.neighbors.faiss_search import FaissFlat, FaissHNSW, FaissIVF

pytest.importorskip("faiss", reason="faiss is not installed")
FEATURES = torch.from_numpy(
    oracle.clouds(np.random.default_rng(0), 1200, 32, centres=60, spread=0.6, copies=20)
)


def recall(found, true):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)])


def test_flat_equals_the_exact_search():
    exact = ExactKNN()(FEATURES, 20)
    flat = FaissFlat()(FEATURES, 20)
    np.testing.assert_array_equal(flat.indices, exact.indices)
    np.testing.assert_array_equal(flat.similarity, exact.similarity)


@pytest.mark.parametrize(
    "search, least",
    [(FaissIVF(), 0.9), (FaissHNSW(), 0.99), (CellSearch(lists=12, share=0.5), 0.9)],
)
def test_approximate_searches_reach_their_recall(search, least):
    exact = ExactKNN()(FEATURES, 20)
    assert recall(search(FEATURES, 20).indices, exact.indices) >= least


def test_all_cells_probed_is_the_exact_search():
    exact = ExactKNN()(FEATURES, 20)
    graph = FaissIVF(lists=8, probes=8)(FEATURES, 20)
    np.testing.assert_array_equal(graph.indices, exact.indices)


def test_cells_that_share_everything_are_the_exact_search():
    exact = ExactKNN()(FEATURES, 20)
    graph = CellSearch(lists=7, share=1.0)(FEATURES, 20)
    np.testing.assert_array_equal(graph.similarity, exact.similarity)
    first = np.sort(exact.similarity, axis=1)[:, :1] < exact.similarity  # above the k-th, no ties
    np.testing.assert_array_equal(graph.indices[first], exact.indices[first])


def test_cells_find_the_same_for_any_slice():
    search = CellSearch(lists=12)
    part = search(FEATURES, 20, rows=range(100, 220))
    np.testing.assert_array_equal(part.indices, search(FEATURES, 20).indices[100:220])


def test_cells_hold_duplicates_beyond_any_room():
    same = FEATURES[:1].repeat(700, 1)
    graph = CellSearch(lists=3)(torch.cat([same, FEATURES]), 10)
    np.testing.assert_allclose(graph.similarity[:700], 1.0, atol=1e-6)


@pytest.mark.parametrize(
    "search",
    [FaissFlat(), FaissIVF(lists=300, probes=1), FaissHNSW(), CellSearch(lists=300, share=0.01)],
)
def test_every_row_has_k_distinct_images_itself_first(search):
    graph = search(FEATURES, 25)
    np.testing.assert_array_equal(graph.indices[:, 0], np.arange(len(FEATURES)))
    assert (np.diff(np.sort(graph.indices, axis=1), axis=1) > 0).all()
    assert (np.diff(graph.similarity[:, 1:], axis=1) <= 0).all()


def test_a_slice_of_rows_is_that_slice():
    whole, part = FaissIVF()(FEATURES, 10), FaissIVF()(FEATURES, 10, rows=range(100, 220))
    np.testing.assert_array_equal(part.indices, whole.indices[100:220])


@pytest.mark.parametrize(
    "build, key",
    [
        (lambda: FaissIVF(probes=-1), "CC.NEIGHBORS.FAISS_IVF.PROBES"),
        (lambda: FaissHNSW(links=1), "CC.NEIGHBORS.FAISS_HNSW.LINKS"),
        (lambda: CellSearch(share=0.0), "CC.NEIGHBORS.CELLS.SHARE"),
        (lambda: CellSearch(lists=-1), "CC.NEIGHBORS.CELLS.LISTS"),
    ],
)
def test_parameters_out_of_range_name_their_key(build, key):
    with pytest.raises(ValueError, match=key):
        build()
