from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from engine import distances
from hypothesis import given, settings
from oracles import labels as oracle
from oracles.labels import dense
from oracles.labels import small_clouds as clouds

from fastreid_cc.labeling import kernels
from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.distances.jaccard import JaccardDistance
from fastreid_cc.labels.numbering import number_by_first_image

RECORDED = sorted((Path(__file__).parent / "parity/labels").glob("jaccard_*.npz"))


def sparse(features, k1, k2, max_distance=1.0):
    return distances(JaccardDistance(k1=k1, k2=k2), features, max_distance)


def recorded_distance(case):
    if "dist" in case:
        return case["dist"]
    n = len(case["features"])
    out = np.ones((n, n), np.float32)
    rows = np.repeat(np.arange(n), np.diff(case["dist_triu_indptr"]))
    columns = case["dist_triu_indices"].astype(np.int64)
    out[rows, columns] = out[columns, rows] = case["dist_triu_data"]
    return out


@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 45),
    lengths=st.sampled_from([(1, 1), (4, 1), (7, 3), (12, 6), (30, 6)]),
    size=st.sampled_from([2, 12]),
)
@settings(max_examples=200, deadline=None)
def test_distances_and_labels_equal_the_dense_formula(seed, images, lengths, size):
    features = clouds(seed, images, size)
    expected = oracle.jaccard(features, *lengths)
    graph = sparse(features, *lengths)
    np.testing.assert_allclose(dense(graph), expected, atol=1e-6)
    for eps in (0.35, 0.6):
        if np.abs(expected - eps).min() > 1e-6:  # else rounding decides
            labels = DBSCAN(eps=eps).fit_predict(graph)[0]
            np.testing.assert_array_equal(labels, oracle.dbscan(expected, eps, 4))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_same_as_cluster_contrast(path):
    case = np.load(path)
    graph = sparse(case["features"], int(case["k1"]), int(case["k2"]))
    ours, theirs = dense(graph), recorded_distance(case)
    if "cut" in case:
        ours, theirs = (np.where(d < case["cut"] - 1e-6, d, 1) for d in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for eps in (0.4, 0.5, 0.6, 0.7):
        recorded = number_by_first_image(case[f"labels_eps0{round(10 * eps)}"])
        np.testing.assert_array_equal(DBSCAN(eps=eps).fit_predict(graph)[0], recorded)


def test_a_smaller_radius_keeps_exactly_the_nearer_pairs():
    features = clouds(0, 400)
    whole, cut = dense(sparse(features, 20, 6)), sparse(features, 20, 6, max_distance=0.55)
    expected = np.where(whole <= np.float32(0.55), whole, 1)
    np.testing.assert_array_equal(dense(cut), expected)


def test_the_matrix_is_symmetric_to_the_bit_with_a_stored_zero_diagonal():
    graph = sparse(clouds(1, 300), 20, 6, max_distance=0.7)
    full = dense(graph)
    assert (full == full.T).all()
    assert graph.nnz > 300 and (graph.diagonal() == 0).all()
    rows = np.repeat(np.arange(300), np.diff(graph.indptr))
    assert ((rows == graph.indices) & (graph.data == 0)).sum() == 300


def test_columns_ascend_in_each_row():
    graph = sparse(clouds(2, 300), 20, 6)
    starts = graph.indptr[1:-1]
    steps = np.diff(graph.indices)
    assert (np.delete(steps, starts - 1) > 0).all()


def test_permuting_the_images_permutes_the_distances():
    features = clouds(3, 250, copies=0)
    order = np.random.default_rng(0).permutation(250)
    one, other = dense(sparse(features, 15, 4)), dense(sparse(features[order], 15, 4))
    np.testing.assert_allclose(other, one[np.ix_(order, order)], atol=1e-6)


def test_identical_images_share_a_cluster():
    features = np.concatenate([clouds(4, 60, copies=0), clouds(4, 60, copies=0)])
    labels = DBSCAN(eps=0.6, min_samples=2).fit_predict(sparse(features, 12, 4))[0]
    np.testing.assert_array_equal(labels[:60], labels[60:])


def test_fewer_images_than_k1_uses_all_of_them():
    features = clouds(5, 9)
    np.testing.assert_allclose(
        dense(sparse(features, 30, 6)), oracle.jaccard(features, 30, 6), atol=1e-6
    )


def test_the_number_of_threads_changes_no_byte(monkeypatch):
    features = clouds(6, 2500)
    monkeypatch.setattr(kernels, "num_threads", lambda: 1)
    one = sparse(features, 20, 6, max_distance=0.7)
    monkeypatch.setattr(kernels, "num_threads", lambda: 3)
    three = sparse(features, 20, 6, max_distance=0.7)
    for name in ("indptr", "indices", "data"):
        assert getattr(one, name).tobytes() == getattr(three, name).tobytes()


def test_the_input_stays_untouched():
    features = clouds(7, 80)
    before = features.copy()
    sparse(features, 20, 6)
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize("values, key", [((0, 1), "K1"), ((5, 6), "K2"), ((5, 0), "K2")])
def test_lengths_out_of_range_name_their_key(values, key):
    with pytest.raises(ValueError, match=f"CC.DISTANCE.JACCARD.{key}"):
        JaccardDistance(k1=values[0], k2=values[1])
