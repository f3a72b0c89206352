import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracles import labels as oracle

from fastreid_cc.labeling import kernels
from fastreid_cc.labeling.neighbors import _candidates
from fastreid_cc.labeling.neighbors import exact as exact_module
from fastreid_cc.labeling.neighbors._device_search import search_on_device
from fastreid_cc.labeling.neighbors._precision import Operand, to_ordered16
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.parallel.processor import has_bfloat16_units

PRECISIONS = ("float32", "bfloat16")


def clouds(seed, images, size, copies=5):
    return oracle.clouds(
        np.random.default_rng(seed), images, size, max(1, images // 8), 0.7, copies
    )


def sorted_lists(features, k):
    similarity = oracle.cosine_matrix(features)
    key = similarity.copy()
    np.fill_diagonal(key, 2)
    column = np.broadcast_to(np.arange(len(key)), key.shape)
    order = np.lexsort((column, -key), axis=1)[:, :k]
    return order, np.take_along_axis(similarity, order, 1)


@pytest.mark.parametrize("precision", PRECISIONS)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 60), size=st.sampled_from([3, 16]))
@settings(max_examples=20, deadline=None)
def test_equals_sorting_every_similarity(precision, seed, images, size):
    features = clouds(seed, images, size)
    k = min(12, images)
    graph = ExactKNN(precision=precision)(torch.from_numpy(features), k)
    np.testing.assert_array_equal(graph.indices, oracle.nearest(oracle.cosine_matrix(features), k))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_equals_sorting_over_many_blocks(precision):
    features = clouds(1, 1500, 24, copies=60)
    order, similarity = sorted_lists(features, 30)
    graph = ExactKNN(precision=precision)(torch.from_numpy(features), 30)
    np.testing.assert_array_equal(graph.indices, order)
    np.testing.assert_array_equal(graph.similarity, similarity)


@pytest.mark.parametrize("low", [False, True])
def test_the_torch_search_for_gpus_gives_the_same_lists(low):
    features = clouds(2, 700, 24, copies=200)
    order, similarity = sorted_lists(features, 20)
    indices, found = search_on_device(torch.from_numpy(features), 20, range(700), low, None)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(found, similarity)


def test_more_duplicates_than_a_list_has_room_for():
    features = clouds(3, 600, 8)
    features[100:500] = features[100]
    order, _ = sorted_lists(features, 30)
    for precision in PRECISIONS:
        graph = ExactKNN(precision=precision)(torch.from_numpy(features), 30)
        np.testing.assert_array_equal(graph.indices, order)


def test_only_duplicates_list_the_image_itself_then_the_lowest_indices():
    features = np.tile(oracle.unit(np.ones((1, 7))), (40, 1))
    graph = ExactKNN()(torch.from_numpy(features), 4)
    np.testing.assert_array_equal(graph.indices[0], [0, 1, 2, 3])
    np.testing.assert_array_equal(graph.indices[30], [30, 0, 1, 2])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_slices_of_rows_joined_are_the_whole_search_byte_for_byte(precision):
    features = torch.from_numpy(clouds(4, 700, 16, copies=50))
    search = ExactKNN(precision=precision)
    whole = search(features, 25)
    parts = [search(features, 25, rows=range(a, b)) for a, b in ((0, 130), (130, 131), (131, 700))]
    for name in ("indices", "similarity"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.tobytes() == getattr(whole, name).tobytes()


def test_the_number_of_threads_and_the_block_size_change_no_byte(monkeypatch):
    features = torch.from_numpy(clouds(5, 900, 16, copies=50))
    monkeypatch.setattr(exact_module, "num_threads", lambda: 1)
    monkeypatch.setattr(kernels, "num_threads", lambda: 1)
    one = ExactKNN()(features, 25)
    monkeypatch.setattr(kernels, "num_threads", lambda: 3)
    monkeypatch.setattr(exact_module, "_block_size", lambda rows: 128)
    three = ExactKNN()(features, 25)
    assert one.indices.tobytes() == three.indices.tobytes()
    assert one.similarity.tobytes() == three.similarity.tobytes()


def test_rotating_the_features_keeps_the_neighbours():
    features = clouds(6, 200, 12, copies=0)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    turned = oracle.unit(features.astype(np.float64) @ rotation)
    first = ExactKNN()(torch.from_numpy(features), 10)
    second = ExactKNN()(torch.from_numpy(turned), 10)
    np.testing.assert_array_equal(first.indices, second.indices)


@pytest.mark.parametrize("low", [False, True])
def test_products_stay_within_the_proven_error(low):
    rng = np.random.default_rng(7)
    features = oracle.unit(rng.normal(size=(300, 48)) ** 3)
    operand = Operand(torch.from_numpy(features), low)
    stored = operand.rows.float().numpy().astype(np.float64)
    exact = features.astype(np.float64) @ features.astype(np.float64).T
    gap = np.abs(stored @ stored.T - exact)
    assert (gap <= operand.errors[:, None]).all()
    assert gap.max() > 0.02 * operand.errors.max() or not low  # the bound is not idle


def test_bfloat16_copies_are_rounded_as_torch_rounds():
    features = torch.from_numpy(clouds(8, 64, 33))
    assert torch.equal(Operand(features, True).rows, features.bfloat16())


def test_ordered_bits_compare_as_the_values():
    values = torch.tensor([[-1.0, -0.25, -1e-3, 0.0, 1e-3, 0.5, 1.0]]).bfloat16()
    bits = values.view(torch.int16).numpy().copy()
    to_ordered16(bits)
    assert (np.diff(bits[0]) > 0).all()


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, -2.0, 3.25]), min_size=2, max_size=40), st.data())
@settings(max_examples=50, deadline=None)
def test_selection_finds_the_kth_largest(values, data):
    k = data.draw(st.integers(1, len(values) - 1))
    array = np.array(values, np.float32)
    assert _candidates.kth_largest(array, k) == np.sort(array)[::-1][k - 1]


def test_more_neighbours_than_images_is_refused():
    features = torch.from_numpy(clouds(9, 5, 4))
    with pytest.raises(ValueError, match=r"k=6 neighbours asked of 5 images"):
        ExactKNN()(features, 6)


@pytest.mark.parametrize(
    ("amx", "avx512", "host", "units"),
    [
        (True, True, "sapphirerapids", True),
        (False, True, "emeraldrapids", False),  # has the instruction, at half of float32's pace
        (False, True, "znver4", True),
        (False, False, "znver3", False),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, amx, avx512, host, units):
    import llvmlite.binding

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_name", lambda: host)
    assert has_bfloat16_units(torch.device("cpu")) is units


def test_an_unknown_precision_names_its_key():
    with pytest.raises(ValueError, match="CC.NEIGHBORS.EXACT.PRECISION"):
        ExactKNN(precision="float16")


def test_progress_reaches_the_end():
    seen = []
    features = torch.from_numpy(clouds(10, 300, 4))
    ExactKNN()(features, 3, progress=lambda stage, done, total: seen.append((stage, done, total)))
    assert seen[-1][0] == "neighbors" and seen[-1][1] == seen[-1][2]
