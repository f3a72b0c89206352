import gc
import weakref

import engine
import numpy as np
import pytest
import torch
from gloo import run_in_two
from oracles import labels as oracle

from fastreid_cc.labeling import kernels
from fastreid_cc.labeling import memory_budget as memory_use
from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.clusterers.kmeans import KMeans
from fastreid_cc.labeling.collapse import CollapsePolicy
from fastreid_cc.labeling.distances.ca_jaccard import CameraAwareJaccardDistance
from fastreid_cc.labeling.distances.jaccard import JaccardDistance
from fastreid_cc.labeling.eps import automatic_eps, stabilities
from fastreid_cc.labeling.links import Links
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.labeling.pseudo_labeler import PseudoLabeler
from fastreid_cc.labeling.refiners.min_size import MinimumSize
from fastreid_cc.labeling.refiners.self_paced import SelfPaced
from fastreid_cc.labeling.unit_rows import unit_rows

FEATURES = oracle.small_clouds(0, 240)
SHORT = JaccardDistance(k1=12, k2=4)


def by_hand(features, eps):
    return oracle.dbscan(oracle.jaccard(features, 12, 4), eps, 4)


def test_labels_equal_the_dense_formula_and_carry_their_eps_and_seconds():
    found = PseudoLabeler(distance=SHORT)(FEATURES)
    np.testing.assert_array_equal(found.labels, by_hand(FEATURES, 0.6))
    assert found.eps == 0.6 and set(found.seconds) == {"neighbors", "distance", "cluster"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_floating_dtype_and_length_of_rows_is_taken(dtype):
    scaled = (3 * FEATURES).astype(dtype)
    kept = scaled.copy()
    found = PseudoLabeler(distance=SHORT)(scaled)
    np.testing.assert_array_equal(found.labels, by_hand(oracle.unit(scaled), 0.6))
    np.testing.assert_array_equal(scaled, kept)


def test_unit_rows_are_not_copied():
    rows = unit_rows(FEATURES)
    assert unit_rows(rows).data_ptr() == rows.data_ptr()


@pytest.fixture
def calls(monkeypatch):
    """What the labeller asks of its parts: the radius of each graph, and those clustered at."""
    heard = []

    def distance(self, *args, max_distance, **more):
        heard.append(("graph", max_distance))
        return measured(self, *args, max_distance=max_distance, **more)

    def cluster(self, x, radii=(None,)):
        heard.append(("cluster", [round(radius, 6) for radius in radii]))
        return clustered(self, x, radii)

    measured, clustered = JaccardDistance.__call__, DBSCAN.fit_predict
    monkeypatch.setattr(JaccardDistance, "__call__", distance)
    monkeypatch.setattr(DBSCAN, "fit_predict", cluster)
    return heard


def test_a_sweep_equals_labelling_at_each_eps_and_starts_with_the_own(calls):
    found = PseudoLabeler(distance=SHORT).sweep(FEATURES, (0.75, 0.3, 0.5))
    assert [one.eps for one in found] == [0.6, 0.75, 0.3, 0.5]
    for one in found:
        np.testing.assert_array_equal(one.labels, by_hand(FEATURES, one.eps))
    assert calls == [("graph", 0.75), ("cluster", [0.6, 0.75, 0.3, 0.5])]


def test_all_radii_of_the_refiners_come_from_one_call_on_one_graph(calls):
    refiners = [SelfPaced(eps_gap=0.05), MinimumSize(), SelfPaced(eps_gap=0.02)]
    PseudoLabeler(distance=SHORT, refiners=refiners)(FEATURES)
    assert calls == [("graph", 0.65), ("cluster", [0.6, 0.65, 0.55, 0.62, 0.58])]


def test_a_collapse_clusters_the_same_graph_once_more_at_the_radii_allowed(calls):
    labeler = PseudoLabeler(
        distance=SHORT, clusterer=DBSCAN(eps=0.1), collapse=CollapsePolicy(num_wanted=20)
    )
    found = labeler(FEATURES)
    assert calls == [("graph", 0.25), ("cluster", [0.1]), ("cluster", [0.15, 0.2, 0.25])]
    np.testing.assert_array_equal(found.labels, by_hand(FEATURES, found.eps))
    assert found.note.endswith(f"eps moved 0.1 -> {found.eps}")


def test_enough_clusters_are_clustered_once(calls):
    labeler = PseudoLabeler(distance=SHORT, collapse=CollapsePolicy(num_wanted=3))
    assert labeler(FEATURES).note == ""
    assert calls == [("graph", 0.75), ("cluster", [0.6])]


def test_a_radius_out_of_range_or_without_an_eps_is_an_error():
    with pytest.raises(ValueError, match=r"eps=1.2 must lie in \(0, 1\]"):
        PseudoLabeler().sweep(FEATURES, [1.2])
    with pytest.raises(ValueError, match="KMeans has no eps"):
        PseudoLabeler(clusterer=KMeans(num_clusters=2)).sweep(FEATURES, [0.5])
    with pytest.raises(ValueError, match="SelfPaced"):
        PseudoLabeler(clusterer=KMeans(num_clusters=2), refiners=[SelfPaced()])


class Unused(ExactKNN, JaccardDistance):
    """A search and a distance that must not be asked."""

    def fail(self, *args, **kwargs):
        raise AssertionError("not consumed")

    __call__ = searches = bytes_needed = fail


def test_a_clusterer_of_features_computes_no_distance():
    labeler = PseudoLabeler(
        neighbors=Unused(), distance=Unused(), clusterer=KMeans(num_clusters=5, backend="sklearn")
    )
    assert labeler(FEATURES).num_clusters == 5


def test_nothing_of_a_labelling_is_kept(monkeypatch):
    """Neither the graph nor the features: the labeller is as it was, weeks of training long."""
    graphs = []
    measured = JaccardDistance.__call__

    def distance(self, *args, **more):
        graphs.append(weakref.ref(graph := measured(self, *args, **more)))
        return graph

    monkeypatch.setattr(JaccardDistance, "__call__", distance)
    labeler = PseudoLabeler(distance=SHORT, refiners=[SelfPaced()])
    before = set(vars(labeler))
    labeler(FEATURES)
    gc.collect()
    assert graphs[0]() is None and set(vars(labeler)) == before


def test_bad_rows_are_named():
    broken = FEATURES.copy()
    broken[3] = 0
    broken[[17, 41]] = np.nan
    broken[50, 0] = np.inf
    with pytest.raises(ValueError, match=r"4 of 240 rows .* rows 3, 17, 41, 50"):
        PseudoLabeler()(broken)


@pytest.mark.parametrize(
    "features", [np.ones((4, 3), int), np.ones(5), np.ones((2, 2, 2)), np.ones((3, 2), bool)]
)
def test_another_shape_or_dtype_is_an_error(features):
    with pytest.raises(ValueError, match=r"floating point \[N, D\]"):
        PseudoLabeler()(features)


def test_cameras_of_another_length_are_an_error():
    with pytest.raises(ValueError, match=r"cameras must be \[240\], found \[3\]"):
        PseudoLabeler()(FEATURES, np.zeros(3, int))


def test_an_empty_set_has_no_labels():
    found = PseudoLabeler()(np.empty((0, 8), np.float32))
    assert found.labels.shape == (0,) and found.num_clusters == 0


@pytest.mark.parametrize("images", [1, 2, 3])
def test_fewer_images_than_min_samples_are_outliers(images):
    found = PseudoLabeler()(FEATURES[:images])
    np.testing.assert_array_equal(found.labels, [-1] * images)


def test_only_duplicates_are_one_cluster():
    found = PseudoLabeler()(np.tile(FEATURES[:1], (50, 1)))
    expected = oracle.dbscan(oracle.jaccard(np.tile(FEATURES[:1], (50, 1)), 30, 6), 0.6, 4)
    np.testing.assert_array_equal(found.labels, expected)


def test_cameras_reach_the_distance():
    cameras = np.random.default_rng(0).integers(0, 3, 240)
    found = PseudoLabeler(distance=CameraAwareJaccardDistance())(FEATURES, cameras)
    expected = oracle.camera_aware_jaccard(FEATURES, cameras, (5, 20), (2, 4))
    np.testing.assert_array_equal(found.labels, oracle.dbscan(expected, 0.6, 4))


def test_too_little_memory_is_refused_with_advice_before_the_start(monkeypatch):
    monkeypatch.setattr(memory_use, "available_bytes", lambda: 1000)
    with pytest.raises(MemoryError, match="needs about .* GB beyond them.*infomap"):
        PseudoLabeler()(FEATURES)


def test_the_estimate_grows_with_images_and_drops_without_distances():
    labeler = PseudoLabeler()
    assert labeler.bytes_needed(200_000, 256) > 1.9 * labeler.bytes_needed(100_000, 256)
    assert PseudoLabeler(clusterer=KMeans()).bytes_needed(100_000, 256) == 0


def test_the_number_of_threads_changes_no_byte(monkeypatch):
    features = oracle.small_clouds(5, 1500, 24)
    outcomes = []
    for threads in (1, 2):
        monkeypatch.setattr(kernels, "num_threads", lambda threads=threads: threads)
        labeler = PseudoLabeler(refiners=[SelfPaced()])
        outcomes.append((labeler(features).labels.tobytes(), labeler.refiners[0].threshold))
    assert outcomes[0] == outcomes[1]


def label_in_group():
    cameras = np.random.default_rng(0).integers(0, 3, 240)
    found = []
    for distance in (SHORT, CameraAwareJaccardDistance()):
        labeler = PseudoLabeler(distance=distance, refiners=[SelfPaced()], distributed=True)
        found.append(labeler(FEATURES, cameras).labels.tobytes())
    collapsed = PseudoLabeler(
        distance=SHORT,
        clusterer=DBSCAN(eps=0.1),
        collapse=CollapsePolicy(num_wanted=20),
        distributed=True,
    )(FEATURES)
    linked = PseudoLabeler(distance=SHORT, refiners=[SelfPaced()], distributed=True)(
        FEATURES, links=Links(np.arange(20).reshape(10, 2), np.array([[0, 2], [4, 100]]))
    )
    found += [linked.labels.tobytes()]
    return [*found, collapsed.labels.tobytes(), collapsed.eps, collapsed.note]


def test_two_processes_give_the_bytes_of_one():
    alone = label_in_group()
    assert run_in_two(label_in_group, timeout=600.0) == [alone, alone]


def test_the_automatic_eps_is_the_mean_of_the_smallest_distances():
    distance = oracle.jaccard(FEATURES, 12, 4).astype(np.float32)
    upper = np.sort(distance[np.triu_indices(240, 1)])
    wanted = round(0.005 * 240 * 239 / 2)
    expected = upper[upper > 1e-6][:wanted].mean()
    labeler = PseudoLabeler(distance=SHORT, clusterer=DBSCAN(auto_rho=0.005))
    found = labeler(FEATURES)
    assert found.eps == pytest.approx(expected, abs=1e-6)
    np.testing.assert_array_equal(found.labels, by_hand(FEATURES, found.eps))


def test_the_automatic_eps_of_the_first_labelling_is_kept_and_travels_in_the_state():
    first = PseudoLabeler(distance=SHORT, clusterer=DBSCAN(auto_rho=0.005), refiners=[SelfPaced()])
    eps = first(FEATURES).eps
    second = PseudoLabeler(distance=SHORT, clusterer=DBSCAN(auto_rho=0.005), refiners=[SelfPaced()])
    second.load_state_dict(first.state_dict())
    assert second(oracle.small_clouds(9, 200)).eps == eps
    with pytest.raises(ValueError, match="refiners"):
        PseudoLabeler().load_state_dict(first.state_dict())


def test_an_automatic_eps_beyond_the_radius_is_refused_with_its_limit():
    labeler = PseudoLabeler(distance=SHORT, clusterer=DBSCAN(auto_rho=0.5))
    with pytest.raises(ValueError, match="AUTO_RHO=0.5 asks for the 14,340 nearest pairs"):
        labeler(FEATURES)


def test_duplicates_do_not_count_as_distances_in_the_automatic_eps():
    graph = engine.distances(SHORT, FEATURES, 0.9)
    with_zeros = graph.copy()
    with_zeros.data = np.where(with_zeros.data < 0.3, 0, with_zeros.data)
    assert automatic_eps(with_zeros, 0.002, 0.9) > automatic_eps(graph, 0.002, 0.9)


def test_stability_is_the_agreement_with_the_next_eps():
    found = PseudoLabeler(distance=SHORT).sweep(FEATURES, (0.3, 0.3, 0.7))[1:]
    same, other, last = stabilities(found)
    assert same == 1.0 and -1 <= other < 1 and np.isnan(last)
    assert stabilities([]) == []


def test_a_refiner_that_looks_at_tighter_radii_only_needs_no_wider_graph(calls):
    class Tighter(SelfPaced):
        def __init__(self):
            super().__init__()
            self.eps_offsets = (-0.1,)

        def refine(self, labels, at_offset, cameras=None):
            return at_offset[-0.1]

    found = PseudoLabeler(distance=SHORT, refiners=[Tighter()])(FEATURES)
    assert calls == [("graph", 0.6), ("cluster", [0.6, 0.5])]
    np.testing.assert_array_equal(found.labels, by_hand(FEATURES, 0.5))


def test_an_interrupt_reaches_the_caller_and_the_next_labelling_works():
    class Interrupted(ExactKNN):
        def search(self, *args, **kwargs):
            raise KeyboardInterrupt

    labeler = PseudoLabeler(neighbors=Interrupted(), distance=SHORT)
    with pytest.raises(KeyboardInterrupt):
        labeler(FEATURES)
    labeler.neighbors = ExactKNN()
    np.testing.assert_array_equal(labeler(FEATURES).labels, by_hand(FEATURES, 0.6))


def test_torch_keeps_its_number_of_threads():
    before = torch.get_num_threads()
    PseudoLabeler()(FEATURES)
    assert torch.get_num_threads() == before
