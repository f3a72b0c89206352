import subprocess
import sys
from importlib.util import find_spec

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.cluster
import torch
from hypothesis import given, settings
from oracles import labels as oracle
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import adjusted_rand_score

from fastreid_cc.labeling.clusterers.components import ConnectedComponents
from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.clusterers.hdbscan import HDBSCAN
from fastreid_cc.labeling.clusterers.infomap_communities import InfoMap, links_of
from fastreid_cc.labeling.clusterers.kmeans import KMeans
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.labels.numbering import number_by_first_image


def random_distance(seed, images, levels):
    """A symmetric matrix with many ties (a few levels), zeros off the diagonal among them."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, levels, size=(images, 2)) / levels
    distance = np.abs(place[:, None] - place[None]).max(-1).astype(np.float32)
    return distance


def cut(distance, radius):
    """CSR of the pairs within the radius, zeros stored."""
    rows, columns = np.nonzero(distance <= np.float32(radius))
    return sp.csr_array((distance[rows, columns], (rows, columns)), shape=distance.shape)


@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 60),
    levels=st.sampled_from([4, 12, 40]),
    min_samples=st.integers(1, 6),
    eps=st.sampled_from([0.05, 0.1, 0.25]),
)
@settings(max_examples=150, deadline=None)
def test_dbscan_equals_scikit_learn_border_images_included(seed, images, levels, min_samples, eps):
    distance = random_distance(seed, images, levels)
    model = sklearn.cluster.DBSCAN(
        eps=float(np.float32(eps)), min_samples=min_samples, metric="precomputed"
    )
    expected = number_by_first_image(model.fit_predict(distance))
    labels = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(cut(distance, 0.5))[0]
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(labels, oracle.dbscan(distance, np.float32(eps), min_samples))


def test_min_samples_one_has_no_outliers_and_is_the_connected_components():
    graph = cut(random_distance(0, 80, 40), 0.5)
    labels = DBSCAN(eps=0.05, min_samples=1).fit_predict(graph)[0]
    assert (labels >= 0).all()
    np.testing.assert_array_equal(
        labels, ConnectedComponents(eps=0.05, min_size=1).fit_predict(graph)[0]
    )


def test_an_eps_at_the_call_stands_in_for_the_constructors():
    graph = cut(random_distance(1, 60, 30), 0.5)
    at_call = DBSCAN(eps=0.5).fit_predict(graph, [0.1])[0]
    np.testing.assert_array_equal(at_call, DBSCAN(eps=0.1).fit_predict(graph)[0])


def test_components_below_the_floor_are_outliers():
    distance = np.ones((6, 6), np.float32)
    np.fill_diagonal(distance, 0)
    for a, b in ((0, 1), (1, 2), (4, 5)):
        distance[a, b] = distance[b, a] = 0.2
    graph = cut(distance, 0.5)
    labels = ConnectedComponents(eps=0.3, min_size=2).fit_predict(graph)[0]
    np.testing.assert_array_equal(labels, [0, 0, 0, -1, 1, 1])
    labels = ConnectedComponents(eps=0.3, min_size=3).fit_predict(graph)[0]
    np.testing.assert_array_equal(labels, [0, 0, 0, -1, -1, -1])


def test_components_leave_the_graph_as_it_is():
    """Else the next radius would be read from a graph that lost its far pairs."""
    graph = cut(random_distance(0, 40, 20), 0.5)
    before = graph.copy()
    ConnectedComponents(eps=0.1).fit_predict(graph)
    np.testing.assert_array_equal(graph.toarray(), before.toarray())
    np.testing.assert_array_equal(graph.indices, before.indices)


@pytest.mark.parametrize("seed", range(6))
def test_hdbscan_equals_scikit_learn_with_the_missing_pairs_filled_in(seed):
    features = oracle.small_clouds(seed, 120, copies=0)
    distance = np.maximum(1 - oracle.cosine_matrix(features), 0)
    np.fill_diagonal(distance, 0)
    distance = np.maximum(distance, distance.T)
    near = distance <= np.float32(0.5)
    dense = near.sum(axis=1) >= 4
    piece = connected_components(near & dense & dense[:, None])[1]
    piece[~dense | (np.bincount(piece)[piece] < 4)] = -1
    inside = (piece >= 0) & (piece >= 0)[:, None]
    filled = np.where(near, distance, np.where(inside, 2.0, 4.0))
    filled[~near & inside & (piece == piece[:, None])] = 4.0
    model = sklearn.cluster.HDBSCAN(
        min_cluster_size=4, min_samples=4, metric="precomputed", copy=True
    )
    expected = model.fit_predict(filled)
    found = HDBSCAN(eps=0.5).fit_predict(cut(distance, 0.7))[0]
    assert found.max() == expected.max()
    assert adjusted_rand_score(expected, found) > 0.93  # merges that tie may be taken in any order


def test_hdbscan_takes_duplicates_singles_and_an_empty_neighbourhood():
    distance = np.ones((12, 12), np.float32)
    distance[:5, :5] = 0
    distance[5:10, 5:10] = 0.1
    np.fill_diagonal(distance, 0)
    labels = HDBSCAN(eps=0.5, min_size=3, min_samples=2).fit_predict(cut(distance, 0.7))[0]
    np.testing.assert_array_equal(labels, [0] * 5 + [1] * 5 + [-1, -1])
    alone = cut(np.ones((5, 5), np.float32) - np.eye(5, dtype=np.float32), 0.5)
    np.testing.assert_array_equal(HDBSCAN().fit_predict(alone)[0], [-1] * 5)


needs_infomap = pytest.mark.skipif(not find_spec("infomap"), reason="infomap is not installed")


@pytest.mark.parametrize("name", ["infomap_N300_k15", "infomap_N1000_k15"])
@needs_infomap
def test_infomap_matches_the_recording(name, request):
    case = np.load(request.path.parent / f"parity/labels/{name}.npz")
    graph = ExactKNN()(torch.from_numpy(case["features"]), int(case["k1"]))
    np.testing.assert_array_equal(graph.indices, case["nbrs"])
    links = links_of(graph, float(case["min_sim"]))
    np.testing.assert_array_equal(links[:, 0], case["link_src"])
    np.testing.assert_array_equal(links[:, 1], case["link_dst"])
    np.testing.assert_allclose(links[:, 2], case["link_weight"], atol=1e-6)
    part = InfoMap(k1=15, min_similarity=float(case["min_sim"]), min_size=int(case["k2"]) + 1)
    labels = part.fit_predict(graph)[0]
    assert adjusted_rand_score(labels, case["labels"]) >= 0.95
    assert part.codelength <= float(case["codelength"]) + 1e-6


@needs_infomap
def test_infomap_by_default_finds_what_many_trials_find():
    """900 images of 60 that are hard to part: the first trial's code is 0.04 % longer, ARI 0.96."""
    features = oracle.clouds(np.random.default_rng(3), 900, 64, 60, 1.1, 0)
    graph = ExactKNN()(torch.from_numpy(features), 15)
    part, best = InfoMap(), InfoMap(trials=40)
    labels, wanted = part.fit_predict(graph)[0], best.fit_predict(graph)[0]
    assert part.codelength <= best.codelength + 1e-6
    assert adjusted_rand_score(labels, wanted) > 0.99


@needs_infomap
def test_infomap_is_repeatable_and_numbers_clusters_by_first_image():
    graph = ExactKNN()(torch.from_numpy(oracle.small_clouds(3, 300)), 10)
    labels = InfoMap(k1=10).fit_predict(graph)[0]
    np.testing.assert_array_equal(labels, InfoMap(k1=10).fit_predict(graph)[0])
    np.testing.assert_array_equal(labels, oracle.by_first_image(labels))


@needs_infomap
def test_infomap_and_faiss_may_be_used_in_either_order():
    """In a fresh process: faiss loaded after infomap took over its iterators, and it crashed."""
    if not find_spec("faiss"):
        pytest.skip("faiss is not installed")
    code = (
        "import torch\n"
        "from fastreid_cc.labeling.clusterers.infomap_communities import InfoMap\n"
        "from fastreid_cc.labeling.neighbors.exact import ExactKNN\n"
        "graph = ExactKNN()(torch.eye(3).repeat(4, 1), 4)\n"
        "first = InfoMap(k1=4, min_size=2).fit_predict(graph)[0]\n"
        "import faiss\n"
        "print((InfoMap(k1=4, min_size=2).fit_predict(graph)[0] == first).all())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", f"exit status {done.returncode}: {done.stderr[-2000:]}"


@needs_infomap
def test_infomap_without_links_leaves_only_outliers():
    graph = ExactKNN()(torch.eye(6), 3)
    np.testing.assert_array_equal(InfoMap(k1=3).fit_predict(graph)[0], [-1] * 6)


@pytest.mark.parametrize("backend", ["faiss", "sklearn"])
def test_kmeans_finds_well_separated_groups(backend):
    if backend == "faiss":
        pytest.importorskip("faiss", reason="faiss is not installed")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 8, 400)
    features = oracle.unit(4 * np.eye(8, 16)[truth] + 0.3 * rng.normal(size=(400, 16)))
    part = KMeans(num_clusters=8, backend=backend, seed=3)
    labels = part.fit_predict(torch.from_numpy(features))[0]
    assert adjusted_rand_score(truth, labels) > 0.7  # k-means may merge a pair of groups
    np.testing.assert_array_equal(labels, oracle.by_first_image(labels))
    np.testing.assert_array_equal(labels, part.fit_predict(torch.from_numpy(features))[0])


def test_more_clusters_than_images_gives_one_each():
    labels = KMeans(num_clusters=50, backend="sklearn").fit_predict(torch.eye(5))[0]
    np.testing.assert_array_equal(labels, np.arange(5))


@given(st.lists(st.integers(-1, 30), max_size=40))
@settings(max_examples=60, deadline=None)
def test_numbering_follows_the_first_image(labels):
    array = np.array(labels, np.int64)
    np.testing.assert_array_equal(number_by_first_image(array), oracle.by_first_image(array))


@pytest.mark.parametrize(
    "build, key",
    [
        (lambda: DBSCAN(eps=1.7), r"CC.CLUSTER.DBSCAN.EPS=1.7 must lie in \(0, 1\]"),
        (lambda: DBSCAN(min_samples=0), "CC.CLUSTER.DBSCAN.MIN_SAMPLES"),
        (lambda: DBSCAN(auto_rho=1.0), "CC.CLUSTER.DBSCAN.AUTO_RHO"),
        (lambda: HDBSCAN(min_size=1), "CC.CLUSTER.HDBSCAN.MIN_SIZE"),
        (lambda: InfoMap(min_similarity=1.0), "CC.CLUSTER.INFOMAP.MIN_SIMILARITY"),
        (lambda: InfoMap(k1=1), "CC.CLUSTER.INFOMAP.K1"),
        (lambda: KMeans(backend="x"), "CC.CLUSTER.KMEANS.BACKEND"),
        (lambda: ConnectedComponents(eps=0), "CC.CLUSTER.COMPONENTS.EPS"),
    ],
)
def test_parameters_out_of_range_name_their_key(build, key):
    with pytest.raises(ValueError, match=key):
        build()
