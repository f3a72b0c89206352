"""What every clusterer keeps; see `Clusterer`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.registry import CLUSTERERS

from .parts import (
    DEVICES,
    FROM_A_RANDOM_START,
    SMALL_DISTANCE,
    Case,
    as_bytes,
    by_first_image,
    food_of,
    images,
    is_valid,
    labels_of,
    repeated,
)

FAMILIES = (CLUSTERERS,)
IMAGES = images()


def labels_from(case: Case, features: torch.Tensor) -> np.ndarray:
    clusterer = case.build()
    return labels_of(clusterer, food_of(clusterer, features))[0]


def test_it_says_what_it_consumes_and_whether_it_has_a_radius(case: Case) -> None:
    clusterer = case.build()
    assert clusterer.consumes in ("features", "neighbors", "distances")
    assert clusterer.eps is None or clusterer.eps > 0
    assert (clusterer.neighbors_needed > 0) == (clusterer.consumes == "neighbors")


@pytest.mark.parametrize("device", DEVICES)
def test_labels_are_whole_numbers_by_first_image(case: Case, device: str) -> None:
    clusterer = case.build()
    food = food_of(clusterer, IMAGES.features)
    if clusterer.consumes == "features":
        food = food.to(device)
    assert is_valid(labels_of(clusterer, food)[0], 36)


def test_identities_that_lie_apart_are_not_mixed(case: Case) -> None:
    if case.name in FROM_A_RANDOM_START:
        pytest.skip(FROM_A_RANDOM_START[case.name])
    labels = labels_from(case, IMAGES.features)
    for cluster in set(labels.tolist()) - {-1}:
        assert len(set(IMAGES.truth[labels == cluster].tolist()) - {-1}) <= 1
    assert labels.max() >= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_images_are_legal(case: Case, count: int) -> None:
    assert is_valid(labels_from(case, IMAGES.features[:count]), count)


def test_images_without_any_link_are_legal(case: Case) -> None:
    """Every image at a right angle to all others: most clusterers find outliers only."""
    assert is_valid(labels_from(case, torch.eye(12)), 12)


def test_images_that_are_all_alike_share_what_they_get(case: Case) -> None:
    labels = labels_from(case, IMAGES.features[:1].repeat(12, 1))
    assert is_valid(labels, 12) and len(set(labels.tolist())) == 1


def test_duplicates_share_a_label(case: Case) -> None:
    clusterer = case.build()
    if clusterer.consumes == "neighbors":
        pytest.skip("a list of k neighbours may hold one of two equal images")
    labels = labels_from(case, IMAGES.features.repeat(2, 1))
    np.testing.assert_array_equal(labels[:36], labels[36:])


def test_permuting_the_images_permutes_the_answer(case: Case) -> None:
    """Images of nobody may fall to either side where a rule depends on the order."""
    if case.name in FROM_A_RANDOM_START:
        pytest.skip(FROM_A_RANDOM_START[case.name])
    order = np.random.default_rng(1).permutation(36)
    known = IMAGES.truth[order] >= 0
    labels = labels_from(case, IMAGES.features)[order][known]
    moved = labels_from(case, IMAGES.permuted(order).features)[known]
    np.testing.assert_array_equal(by_first_image(moved), by_first_image(labels))


def test_two_calls_give_the_same_bytes_and_leave_no_trace(case: Case) -> None:
    food = food_of(case.build(), IMAGES.features.clone())
    repeated(lambda: labels_of(case.build(), food), food)
    again = case.build()  # nor does a second call on the same object differ
    assert as_bytes(labels_of(again, food)) == as_bytes(labels_of(again, food))


def test_several_radii_of_one_call_are_those_of_single_calls(case: Case) -> None:
    clusterer = case.build()
    food = food_of(clusterer, IMAGES.features)
    if clusterer.eps is None:
        pytest.skip("it has no radius")
    radii = (0.2, clusterer.eps, 0.05)
    together = labels_of(clusterer, food, *radii)
    assert all(is_valid(labels, 36) for labels in together)
    for radius, labels in zip(radii, together, strict=True):
        np.testing.assert_array_equal(labels, labels_of(case.build(eps=radius), food)[0])
    np.testing.assert_array_equal(together[1], labels_of(clusterer, food)[0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_labels_are_made_with_it_from_any_float_features(case: Case, dtype: type) -> None:
    labeler = PseudoLabeler(distance=SMALL_DISTANCE.build(), clusterer=case.build())
    result = labeler(IMAGES.features.numpy().astype(dtype), IMAGES.cameras)
    assert is_valid(result.labels, 36)
    assert result.num_clusters >= 1


def test_no_images_give_no_labels(case: Case) -> None:
    labeler = PseudoLabeler(clusterer=case.build())
    assert labeler(np.empty((0, 16), np.float32)).labels.shape == (0,)
