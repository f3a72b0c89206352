"""What every distance keeps; see `Distance`."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.registry import DISTANCES

from .parts import DEVICES, Case, as_bytes, distances_of, images, is_valid, repeated, unit_rows

FAMILIES = (DISTANCES,)
IMAGES = images()
CAMERAS = {"no cameras": None, "one camera": np.zeros(36, int), "several": IMAGES.cameras}

with_cameras = pytest.mark.parametrize("cameras", CAMERAS.values(), ids=CAMERAS.keys())


@with_cameras
@pytest.mark.parametrize("device", DEVICES)
def test_the_answer_is_symmetric_within_the_radius_and_holds_the_zeros_of_the_diagonal(
    case: Case, cameras: np.ndarray | None, device: str
) -> None:
    graph = distances_of(case.build(), IMAGES.features.to(device), 0.7, cameras)
    assert isinstance(graph, sp.csr_array)
    assert graph.shape == (36, 36) and graph.dtype == np.float32
    assert graph.has_canonical_format  # columns ascend, none twice
    assert graph.data.min() >= 0 and graph.data.max() <= np.float32(0.7)
    assert as_bytes(graph) == as_bytes(sp.csr_array(graph.T.tocsr()))
    for image in range(36):
        own = graph.indptr[image] + np.searchsorted(
            graph.indices[graph.indptr[image] : graph.indptr[image + 1]], image
        )
        assert graph.indices[own] == image and graph.data[own] == 0


@with_cameras
def test_a_smaller_radius_keeps_the_near_pairs_as_they_are(
    case: Case, cameras: np.ndarray | None
) -> None:
    wide, narrow = (distances_of(case.build(), IMAGES.features, r, cameras) for r in (0.9, 0.4))
    near = wide.data <= np.float32(0.4)
    assert 0 < near.sum() < len(near)
    rows = np.repeat(np.arange(36), np.diff(wide.indptr))[near]
    kept = sp.csr_array((wide.data[near], (rows, wide.indices[near])), shape=wide.shape)
    assert as_bytes(kept) == as_bytes(narrow)


@with_cameras
def test_images_of_one_identity_are_nearer(case: Case, cameras: np.ndarray | None) -> None:
    graph = distances_of(case.build(), IMAGES.features, 1.0, cameras)
    table = np.full(graph.shape, 1.0)
    rows = np.repeat(np.arange(36), np.diff(graph.indptr))
    table[rows, graph.indices] = graph.data
    same = (IMAGES.truth == IMAGES.truth[:, None]) & (IMAGES.truth >= 0) & ~np.eye(36, dtype=bool)
    other = (IMAGES.truth != IMAGES.truth[:, None]) & (IMAGES.truth >= 0)
    assert table[same].mean() < table[other].mean() - 0.1


@with_cameras
def test_permuting_the_images_permutes_the_answer(case: Case, cameras: np.ndarray | None) -> None:
    order = np.random.default_rng(1).permutation(36)
    graph = distances_of(case.build(), IMAGES.features, 1.0, cameras).toarray()
    moved = distances_of(
        case.build(),
        IMAGES.permuted(order).features,
        1.0,
        None if cameras is None else cameras[order],
    ).toarray()
    np.testing.assert_allclose(moved, graph[np.ix_(order, order)], atol=2e-6)


def test_turning_all_features_changes_no_distance(case: Case) -> None:
    turn = torch.linalg.qr(unit_rows(16, 16, seed=5))[0].float()
    turned = torch.nn.functional.normalize(IMAGES.features @ turn)
    graph = distances_of(case.build(), IMAGES.features, 1.0, IMAGES.cameras)
    other = distances_of(case.build(), turned, 1.0, IMAGES.cameras)
    np.testing.assert_allclose(other.toarray(), graph.toarray(), atol=1e-5)


def test_the_names_of_the_cameras_do_not_matter(case: Case) -> None:
    graph = distances_of(case.build(), IMAGES.features, 1.0, IMAGES.cameras)
    renamed = np.array([71, 3, 40])[IMAGES.cameras]
    assert as_bytes(distances_of(case.build(), IMAGES.features, 1.0, renamed)) == as_bytes(graph)


def test_duplicates_are_no_farther_than_anything_else(case: Case) -> None:
    features = IMAGES.features[:12].repeat(3, 1)
    table = distances_of(case.build(), features, 1.0).toarray()
    assert np.isfinite(table).all()
    copies = np.arange(36) % 12 == (np.arange(36) % 12)[:, None]
    stored = distances_of(case.build(), features, 1.0)
    rows = np.repeat(np.arange(36), np.diff(stored.indptr))
    assert copies.sum() == (copies[rows, stored.indices]).sum()  # every copy is within reach
    assert table[copies].max() <= 0.5


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_and_two_are_legal(case: Case, count: int) -> None:
    graph = distances_of(case.build(), IMAGES.features[:count], 0.6, np.arange(count))
    assert graph.shape == (count, count) and (graph.diagonal() == 0).all() and graph.nnz >= count


def test_two_calls_give_the_same_bytes_and_leave_no_trace(case: Case) -> None:
    features, cameras = IMAGES.features.clone(), IMAGES.cameras.copy()
    repeated(lambda: distances_of(case.build(), features, 0.8, cameras), features, cameras)


def test_the_memory_it_wants_grows_with_the_images(case: Case) -> None:
    distance = case.build()
    few, many = distance.bytes_needed(1_000), distance.bytes_needed(100_000)
    assert isinstance(few, int) and 0 <= few <= many


@with_cameras
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_labels_are_made_with_it_from_any_float_features(
    case: Case, dtype: type, cameras: np.ndarray | None
) -> None:
    labeler = PseudoLabeler(distance=case.build())
    result = labeler(IMAGES.features.numpy().astype(dtype), cameras)
    assert is_valid(result.labels, 36) and result.num_clusters >= 1


def test_no_images_give_no_labels(case: Case) -> None:
    result = PseudoLabeler(distance=case.build())(np.empty((0, 16), np.float32))
    assert result.labels.shape == (0,)
