import numpy as np
import pytest
import torch
from oracles import labels as oracle

from fastreid_cc import neighbors  # noqa: F401
from fastreid_cc.neighbors.exact import ExactKNN
from fastreid_cc.neighbors.faiss_search import FaissFlat, FaissHNSW, FaissIVF

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


@pytest.mark.parametrize("search, least", [(FaissIVF(), 0.9), (FaissHNSW(), 0.99)])
def test_approximate_searches_reach_their_recall(search, least):
    exact = ExactKNN()(FEATURES, 20)
    assert recall(search(FEATURES, 20).indices, exact.indices) >= least


def test_all_cells_probed_is_the_exact_search():
    exact = ExactKNN()(FEATURES, 20)
    graph = FaissIVF(lists=8, probes=8)(FEATURES, 20)
    np.testing.assert_array_equal(graph.indices, exact.indices)


@pytest.mark.parametrize("search", [FaissFlat(), FaissIVF(lists=300, probes=1), FaissHNSW()])
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
    ],
)
def test_parameters_out_of_range_name_their_key(build, key):
    with pytest.raises(ValueError, match=key):
        build()
