import hypothesis.strategies as st
import numpy as np
import pytest
from engine import distances
from hypothesis import given, settings
from oracles import labels as oracle
from oracles.labels import dense
from oracles.labels import small_clouds as clouds

from fastreid_cc.labeling.distances.ca_jaccard import CameraAwareJaccardDistance
from fastreid_cc.labeling.distances.jaccard import JaccardDistance


def distance(features, cameras, **more):
    return distances(CameraAwareJaccardDistance(**more), features, cameras=cameras)


@given(
    seed=st.integers(0, 10**6),
    images=st.integers(2, 45),
    cameras=st.integers(2, 5),
    lengths=st.sampled_from([((5, 20), (2, 4)), ((3, 6), (3, 3)), ((2, 3), (1, 0))]),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_dense_formula(seed, images, cameras, lengths):
    features = clouds(seed, images)
    camera = np.random.default_rng(seed).integers(0, cameras, images)
    camera[:2] = 0, 1
    (intra, inter), (few_intra, few_inter) = lengths
    graph = distance(
        features, camera, k1_intra=intra, k1_inter=inter, k2_intra=few_intra, k2_inter=few_inter
    )
    expected = oracle.camera_aware_jaccard(features, camera, *lengths)
    np.testing.assert_allclose(dense(graph), expected, atol=1e-6)


def test_cameras_whose_own_images_fill_the_first_search():
    rng = np.random.default_rng(0)
    features = oracle.clouds(rng, 300, 8, 2, 0.3, 0)
    camera = (rng.random(300) < 0.1).astype(int)  # nine of ten neighbours share the camera
    graph = distance(features, camera, k1_intra=2, k1_inter=8)
    expected = oracle.camera_aware_jaccard(features, camera, (2, 8), (2, 4))
    np.testing.assert_allclose(dense(graph), expected, atol=1e-6)


@pytest.mark.parametrize("cameras", [None, np.full(120, 3)])
def test_one_camera_is_the_plain_distance(cameras):
    plain = distances(JaccardDistance(k1=20, k2=6), clouds(1, 120), 0.7)
    aware = distances(CameraAwareJaccardDistance(k1=20, k2=6), clouds(1, 120), 0.7, cameras=cameras)
    np.testing.assert_array_equal(dense(aware), dense(plain))


def test_camera_names_do_not_matter():
    features, camera = clouds(2, 150), np.random.default_rng(2).integers(0, 4, 150)
    renamed = np.array([90, -5, 7, 1000])[camera]
    np.testing.assert_array_equal(
        dense(distance(features, camera)), dense(distance(features, renamed))
    )


def test_lengths_out_of_range_name_their_key():
    with pytest.raises(ValueError, match="CC.DISTANCE.CA_JACCARD.K2_INTRA=9"):
        CameraAwareJaccardDistance(k2_intra=9)
