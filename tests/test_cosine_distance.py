import numpy as np
import pytest
from engine import distances
from oracles import labels as oracle
from oracles.labels import dense
from oracles.labels import small_clouds as clouds

from fastreid_cc.labeling.distances.cosine import CosineDistance


def expected(features, radius):
    distance = np.maximum(1 - oracle.cosine_matrix(features), 0).astype(np.float32)
    np.fill_diagonal(distance, 0)
    return np.where(distance <= np.float32(radius), distance, 1)


def graph(features, radius, **more):
    return distances(CosineDistance(**more), features, radius)


@pytest.mark.parametrize("images", [1, 2, 150, 1300])
@pytest.mark.parametrize("radius", [0.05, 0.4])
def test_holds_exactly_the_pairs_in_range(images, radius):
    features = clouds(images, images)
    np.testing.assert_array_equal(dense(graph(features, radius)), expected(features, radius))


def test_duplicates_are_stored_zeros():
    features = np.tile(oracle.unit(np.ones((1, 5))), (6, 1))
    found = graph(features, 0.3)
    assert found.nnz == 36 and (found.data == 0).all()


def test_k_keeps_the_pairs_near_for_one_of_the_two():
    features = clouds(3, 200, copies=0)
    ranks = oracle.nearest(oracle.cosine_matrix(features), 5)
    linked = np.zeros((200, 200), bool)
    linked[np.arange(200)[:, None], ranks] = True
    whole = expected(features, 0.6)
    np.testing.assert_array_equal(
        dense(graph(features, 0.6, k1=5)), np.where(linked | linked.T, whole, 1)
    )


def test_a_radius_that_takes_in_everything_is_refused_with_advice():
    with pytest.raises(ValueError, match="lower eps"):
        graph(clouds(4, 300), 0.9, max_pairs=5)


def test_parameters_out_of_range_name_their_key():
    with pytest.raises(ValueError, match="CC.DISTANCE.COSINE.K1=-1"):
        CosineDistance(k1=-1)
