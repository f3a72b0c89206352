"""What every neighbour search keeps; see `NeighborSearch`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.registry import NEIGHBORS
from fastreid_cc.structures import KnnGraph

from .parts import DEVICES, SMALL_DISTANCE, Case, as_bytes, images, is_valid, knn_graph, repeated

FAMILIES = (NEIGHBORS,)
IMAGES = images()


@pytest.mark.parametrize("device", DEVICES)
def test_the_answer_is_a_graph_on_the_host_the_image_itself_first(case: Case, device: str) -> None:
    features = IMAGES.features.to(device)
    graph = case.build()(features, 7)
    assert isinstance(graph, KnnGraph)
    assert isinstance(graph.indices, np.ndarray) and isinstance(graph.similarity, np.ndarray)
    assert (graph.indices.dtype, graph.similarity.dtype) == (np.int64, np.float32)
    assert graph.indices.shape == (36, 7)
    np.testing.assert_array_equal(graph.indices[:, 0], np.arange(36))
    assert all(len(set(row)) == 7 for row in graph.indices.tolist())
    assert graph.indices.min() >= 0 and graph.indices.max() < 36


def test_similarities_are_cosines_descending(case: Case) -> None:
    graph = case.build()(IMAGES.features, 9)
    rows = IMAGES.features.double().numpy()
    exact = np.einsum("nd,nkd->nk", rows, rows[graph.indices])
    np.testing.assert_allclose(graph.similarity, exact, atol=1e-6)
    assert (np.diff(graph.similarity[:, 1:], axis=1) <= 0).all()


def test_the_nearest_images_are_found(case: Case) -> None:
    """All of them by an exact search; an approximate one may miss a tenth."""
    graph, exact = case.build()(IMAGES.features, 5), knn_graph(IMAGES.features, 5)
    found = [len(set(a) & set(b)) for a, b in zip(graph.indices, exact.indices, strict=True)]
    assert sum(found) >= 0.9 * exact.indices.size


def test_some_rows_are_found_as_in_the_whole(case: Case) -> None:
    whole = case.build()(IMAGES.features, 6)
    part = case.build()(IMAGES.features, 6, rows=range(11, 29))
    assert part.indices.shape == (18, 6)
    np.testing.assert_array_equal(part.indices, whole.indices[11:29])
    np.testing.assert_array_equal(part.similarity, whole.similarity[11:29])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_parts_are_all_rows_once_and_make_up_the_whole_where_it_splits(
    case: Case, count: int
) -> None:
    search = case.build()
    prepared = search.prepare(IMAGES.features)
    asked = search.parts(36, count, **prepared)
    assert len(asked) == count
    np.testing.assert_array_equal(
        np.sort(np.concatenate([np.asarray(a) for a in asked])), range(36)
    )
    if not search.splits:
        return
    whole = search(IMAGES.features, 6)
    for rows in asked:
        if len(rows):
            part = search(IMAGES.features, 6, rows=rows, **prepared)
            where = np.asarray(rows)
            np.testing.assert_array_equal(part.indices, whole.indices[where])
            assert as_bytes(part.similarity) == as_bytes(whole.similarity[where])


def test_one_image_is_its_own_neighbour(case: Case) -> None:
    graph = case.build()(IMAGES.features[:1], 1)
    assert graph.indices.tolist() == [[0]]
    np.testing.assert_allclose(graph.similarity, [[1.0]], atol=1e-6)


def test_all_images_may_be_asked_for(case: Case) -> None:
    graph = case.build()(IMAGES.features[:9], 9)
    assert all(sorted(row) == list(range(9)) for row in graph.indices.tolist())


@pytest.mark.parametrize("k", [0, 37])
def test_a_number_of_neighbours_that_cannot_be_is_refused(case: Case, k: int) -> None:
    with pytest.raises(ValueError, match=rf"k={k} .*\[1, 36\]"):
        case.build()(IMAGES.features, k)


def test_duplicates_come_in_order_of_index_after_the_image_itself(case: Case) -> None:
    features = IMAGES.features[:6].repeat(4, 1)
    graph = case.build()(features, 4)
    for image, row in enumerate(graph.indices.tolist()):
        copies = [other for other in range(image % 6, 24, 6) if other != image]
        assert row == [image, *copies]


def test_permuting_the_images_permutes_the_answer(case: Case) -> None:
    order = np.random.default_rng(1).permutation(36)
    graph = case.build()(IMAGES.features, 5)
    other = case.build()(IMAGES.permuted(order).features, 5)
    same = [
        len(set(order[a]) & set(b))
        for a, b in zip(other.indices, graph.indices[order], strict=True)
    ]
    assert sum(same) >= 0.9 * graph.indices.size  # an approximate search may differ a little


def test_two_calls_give_the_same_bytes_and_leave_no_trace(case: Case) -> None:
    features = IMAGES.features.clone()
    repeated(lambda: case.build()(features, 6), features)


def test_rows_that_are_not_contiguous_give_the_same(case: Case) -> None:
    apart = torch.empty(16, 36).copy_(IMAGES.features.T).T
    assert not apart.is_contiguous()
    assert as_bytes(case.build()(apart, 6)) == as_bytes(case.build()(IMAGES.features, 6))


def test_progress_is_told_in_whole_pieces(case: Case) -> None:
    heard: list[tuple[str, int, int]] = []
    case.build()(IMAGES.features, 5, progress=lambda *told: heard.append(told))
    assert all(stage == "neighbors" and 0 <= done <= total for stage, done, total in heard)


def test_the_memory_it_wants_grows_with_the_images(case: Case) -> None:
    search = case.build()
    few, many = (search.bytes_needed(images, 256, 30) for images in (1_000, 100_000))
    assert isinstance(few, int) and 0 <= few <= many


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_labels_are_made_with_it_from_any_float_features(case: Case, dtype: type) -> None:
    labeler = PseudoLabeler(neighbors=case.build(), distance=SMALL_DISTANCE.build())
    result = labeler(IMAGES.features.numpy().astype(dtype))
    assert is_valid(result.labels, 36) and result.num_clusters > 1


def test_no_images_give_no_labels(case: Case) -> None:
    result = PseudoLabeler(neighbors=case.build())(np.empty((0, 16), np.float32))
    assert result.labels.shape == (0,)
