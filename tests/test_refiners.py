from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from oracles import labels as oracle

from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.distances.jaccard import JaccardDistance
from fastreid_cc.labeling.refiners.min_size import MinimumSize
from fastreid_cc.labeling.refiners.self_paced import SelfPaced, distance_of_memberships
from fastreid_cc.labeling.refiners.single_camera import SingleCamera
from fastreid_cc.labels.numbering import outliers_as_clusters

RECORDED = sorted((Path(__file__).parent / "parity/labels").glob("reliability_*.npz"))


NONE = {}  # these refiners ask for no other labels


def at(loose, tight):
    """Labels at the offsets that SelfPaced asks for."""
    return {0.02: loose, -0.02: tight}


def without_singletons(labels):
    """SpCL's labels, in which outliers are clusters of one, as ours."""
    alone = np.bincount(labels)[labels] < 2
    return oracle.by_first_image(np.where(alone, -1, labels))


@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 5)), min_size=1, max_size=40))
@settings(max_examples=80, deadline=None)
def test_memberships_from_counts_equal_those_from_sets(pairs):
    labels, other = np.array(pairs, np.int64).T
    ours = distance_of_memberships(outliers_as_clusters(labels), outliers_as_clusters(other))
    np.testing.assert_allclose(ours, oracle.reliability(labels, other), atol=1e-12)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_self_paced_labels_equal_spcl_at_both_epochs(path):
    case = np.load(path)
    refiner = SelfPaced(eps_gap=float(case["eps_gap"]))
    labeler = PseudoLabeler(
        distance=JaccardDistance(k1=int(case["k1"]), k2=int(case["k2"])),
        clusterer=DBSCAN(eps=float(case["eps"])),
        refiners=[refiner],
    )
    found = labeler(case["features"])
    np.testing.assert_array_equal(found.labels, without_singletons(case["labels_after"]))
    assert refiner.threshold == pytest.approx(float(case["indep_thres"]), abs=1e-6)
    refiner.load_state_dict({"threshold": float(case["epoch1_indep_thres"])})
    again = labeler(case["features"])
    np.testing.assert_array_equal(again.labels, without_singletons(case["epoch1_labels_after"]))


@pytest.mark.parametrize("case", ["case0", "case1", "case2"])
def test_self_paced_equals_the_recorded_refinement_with_and_without_sources(case):
    """From the recorded DBSCAN labels; SpCL's final labels start after the source classes."""
    recorded = np.load(Path(__file__).parent / "parity/labels/spcl_label_refine.npz")
    data = {k[len(case) + 2 :]: v for k, v in recorded.items() if k.startswith(case)}
    tight, normal, loose = (data[f"dbscan_{name}"] for name in ("tight", "normal", "loose"))
    own = outliers_as_clusters(normal)
    for other, name in ((tight, "R_comp"), (loose, "R_indep")):
        found = distance_of_memberships(own, outliers_as_clusters(other))
        np.testing.assert_allclose(found, data[name], atol=1e-6)
    refiner = SelfPaced()
    for epoch in ("", "epoch1_"):
        tight, normal, loose = (
            data[f"{epoch}dbscan_{name}"] for name in ("tight", "normal", "loose")
        )
        final = data[f"{epoch}final_labels"] - int(data["n_source_classes"])
        first = oracle.by_first_image(normal)
        kept = refiner.refine(first, at(loose, tight))
        np.testing.assert_array_equal(kept, without_singletons(final))
        assert refiner.threshold == pytest.approx(float(data["indep_thres"]), abs=1e-6)
    tight, normal, loose = (data[f"dbscan_{name}"] for name in ("tight", "normal", "loose"))
    first = oracle.by_first_image(normal)
    merged = outliers_as_clusters(refiner.refine(first, at(loose, tight)))
    partition = data["openunreid_labels"]
    np.testing.assert_array_equal(merged[:, None] == merged, partition[:, None] == partition)


def test_labels_that_hold_at_every_eps_are_kept_whole():
    labels = np.array([0, 0, 1, 1, -1, 2, 2, 2])
    kept = SelfPaced().refine(labels, at(labels, labels))
    np.testing.assert_array_equal(kept, labels)


def test_a_cluster_that_grows_at_the_looser_eps_goes():
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 3])
    loose = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    refiner = SelfPaced(quantile=0.0)  # the threshold is the most independent cluster's value
    kept = refiner.refine(labels, at(loose, labels))
    np.testing.assert_array_equal(kept, [0, 0, 0] + [-1] * 7)


def test_the_threshold_of_the_first_labelling_stays_and_travels_in_the_state():
    labels = np.array([0, 0, 1, 1])
    first = SelfPaced()
    first.refine(labels, at(labels, labels))
    second = SelfPaced()
    second.load_state_dict(first.state_dict())
    merged = np.zeros(4, np.int64)
    for refiner in (first, second):
        out = refiner.refine(labels, at(merged, labels))
        np.testing.assert_array_equal(out, [-1] * 4)
        assert refiner.threshold == 0.0


def test_only_outliers_stay_outliers_and_set_no_threshold():
    labels = np.full(5, -1)
    refiner = SelfPaced()
    np.testing.assert_array_equal(refiner.refine(labels, at(labels, labels)), labels)
    assert refiner.threshold is None


def test_small_clusters_go_and_the_rest_is_renumbered():
    labels = np.array([0, 1, 1, 2, 2, 2, -1])
    kept = MinimumSize(min_size=3).refine(labels, NONE)
    np.testing.assert_array_equal(kept, [-1, -1, -1, 0, 0, 0, -1])
    np.testing.assert_array_equal(MinimumSize(min_size=1).refine(labels, NONE), labels)
    np.testing.assert_array_equal(labels, [0, 1, 1, 2, 2, 2, -1])


def test_clusters_that_one_camera_fills_go():
    labels = np.array([0, 0, 0, 1, 1, 1, 2, -1])
    cameras = np.array([7, 7, 7, 7, 3, 3, 9, 1])
    kept = SingleCamera().refine(labels, NONE, cameras=cameras)
    np.testing.assert_array_equal(kept, [-1, -1, -1, 0, 0, 0, -1, -1])
    kept = SingleCamera(max_share=0.6).refine(labels, NONE, cameras=cameras)
    np.testing.assert_array_equal(kept, [-1] * 8)


def test_one_camera_in_the_data_set_drops_nothing():
    labels = np.array([0, 0, 1, -1])
    kept = SingleCamera().refine(labels, NONE, cameras=np.zeros(4, int))
    np.testing.assert_array_equal(kept, labels)


def test_missing_cameras_are_an_error():
    with pytest.raises(
        ValueError, match="CC.REFINE.NAMES holds single_camera, which needs the cameras"
    ):
        SingleCamera().refine(np.zeros(3, np.int64), NONE)


@pytest.mark.parametrize(
    "build, key",
    [
        (lambda: SelfPaced(eps_gap=0), "CC.REFINE.SELF_PACED.EPS_GAP"),
        (lambda: SelfPaced(quantile=2), "CC.REFINE.SELF_PACED.QUANTILE"),
        (lambda: MinimumSize(min_size=0), "CC.REFINE.MIN_SIZE.MIN_SIZE"),
        (lambda: SingleCamera(max_share=1.0), "CC.REFINE.SINGLE_CAMERA.MAX_SHARE"),
    ],
)
def test_parameters_out_of_range_name_their_key(build, key):
    with pytest.raises(ValueError, match=key):
        build()
