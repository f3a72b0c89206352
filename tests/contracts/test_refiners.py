"""What every refiner keeps; see `Refiner`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.registry import MEMORIES, REFINERS

from .parts import (
    SMALL_DISTANCE,
    Case,
    as_bytes,
    by_first_image,
    images,
    is_valid,
    make_batch,
    offsets_of,
    refined,
    repeated,
)

FAMILIES = (REFINERS,)
IMAGES = images()
CLUSTERS = np.where(np.arange(36) % 7 == 3, -1, IMAGES.truth)  # with a few images left out
CLUSTERS = by_first_image(CLUSTERS)
LABELS = {
    "clusters": CLUSTERS,
    "one cluster": np.zeros(36, np.int64),
    "outliers only": np.full(36, -1),
    "one image": np.zeros(1, np.int64),
    "one outlier": np.full(1, -1),
    "no image": np.empty(0, np.int64),
}


def at_offsets(refiner: Any, labels: np.ndarray) -> dict[float, np.ndarray]:
    """Labels at the offsets it asked for: wider radii join clusters, tighter ones split them."""
    found = {}
    for offset in offsets_of(refiner):
        halves = np.where(labels < 0, -1, 2 * labels + np.arange(len(labels)) % 2)
        found[offset] = by_first_image(labels // 2 if offset > 0 else halves)
        found[offset][labels < 0] = -1
    return found


def answer(refiner: Any, labels: np.ndarray, cameras: np.ndarray | None) -> np.ndarray:
    features = IMAGES.features[: len(labels)]
    return refined(refiner, labels.copy(), at_offsets(refiner, labels), cameras, features)


def trained(refiner: Any, labels: np.ndarray = CLUSTERS) -> Any:
    """The refiner after an epoch: told the clusters, then shown a few batches."""
    memory = MEMORIES.get("cluster")()
    memory.reset(IMAGES.features, torch.from_numpy(labels))
    memory.set_epoch(50)
    refiner.start(labels.copy())
    for seed in range(3):
        indices = torch.from_numpy(np.random.default_rng(seed).integers(0, len(labels), 16))
        targets = memory.label_space(torch.from_numpy(labels))[indices]
        refiner.observe(make_batch(IMAGES.features[indices] * 3, targets, None, indices), memory)
    return refiner


def test_the_radii_it_wants_are_declared(case: Case) -> None:
    offsets = case.build().eps_offsets
    assert isinstance(offsets, tuple) and len(set(offsets)) == len(offsets)
    assert all(isinstance(offset, float) and offset != 0 for offset in offsets)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("after_an_epoch", [False, True])
def test_labels_stay_labels(case: Case, labels: np.ndarray, after_an_epoch: bool) -> None:
    refiner = (
        trained(case.build(), labels) if after_an_epoch and len(labels) == 36 else case.build()
    )
    assert is_valid(answer(refiner, labels, IMAGES.cameras[: len(labels)]), len(labels))


@pytest.mark.parametrize("cameras", [None, np.zeros(36, np.int64), IMAGES.cameras % 2])
def test_cameras_may_be_missing_or_one_or_the_key_is_named(
    case: Case, cameras: np.ndarray | None
) -> None:
    try:
        kept = answer(case.build(), CLUSTERS, cameras)
    except ValueError as error:
        assert cameras is None, "only missing cameras may be refused"
        assert "CC.REFINE." in str(error) and "camera" in str(error)
        return
    assert is_valid(kept, 36)


def test_without_features_labels_stay_labels(case: Case) -> None:
    others = at_offsets(case.build(), CLUSTERS)
    assert is_valid(refined(case.build(), CLUSTERS.copy(), others, IMAGES.cameras), 36)


def test_the_names_of_the_cameras_do_not_matter(case: Case) -> None:
    renamed = np.array([71, 3, 40])[IMAGES.cameras]
    np.testing.assert_array_equal(
        answer(case.build(), CLUSTERS, renamed), answer(case.build(), CLUSTERS, IMAGES.cameras)
    )


def test_permuting_the_images_permutes_the_answer(case: Case) -> None:
    order = np.random.default_rng(1).permutation(36)
    refiner = case.build()
    wanted = {k: by_first_image(v[order]) for k, v in at_offsets(refiner, CLUSTERS).items()}
    features = IMAGES.features[torch.from_numpy(order)]
    labels, cameras = by_first_image(CLUSTERS[order]), IMAGES.cameras[order]
    moved = refined(refiner, labels, wanted, cameras, features)
    expected = by_first_image(answer(case.build(), CLUSTERS, IMAGES.cameras)[order])
    np.testing.assert_array_equal(moved, expected)


def test_two_calls_give_the_same_bytes_and_leave_no_trace(case: Case) -> None:
    labels, cameras, features = CLUSTERS.copy(), IMAGES.cameras.copy(), IMAGES.features.clone()
    others = at_offsets(case.build(), labels)

    def epochs() -> list[np.ndarray]:
        refiner = case.build()
        first = refined(refiner, labels, others, cameras, features)
        trained(refiner, labels)
        return [first, refined(refiner, labels, others, cameras, features)]

    repeated(epochs, labels, cameras, others, features)


def test_watching_a_batch_changes_neither_batch_nor_memory(case: Case) -> None:
    memory = MEMORIES.get("cluster")()
    memory.reset(IMAGES.features, torch.from_numpy(CLUSTERS))
    memory.set_epoch(50)
    refiner = case.build()
    refiner.start(CLUSTERS)
    batch = make_batch(IMAGES.features[:16] * 3, torch.from_numpy(CLUSTERS[:16]))
    before = as_bytes(batch), as_bytes(memory.get_state())
    refiner.observe(batch, memory)
    assert (as_bytes(batch), as_bytes(memory.get_state())) == before


def test_restored_from_its_state_it_goes_on_with_the_same_bytes(case: Case) -> None:
    refiner, other = case.build(), case.build()
    answer(refiner, CLUSTERS, IMAGES.cameras)
    trained(refiner)
    buffer = io.BytesIO()
    torch.save(refiner.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    following = by_first_image(np.where(np.arange(36) % 5 == 2, -1, CLUSTERS))
    for one in (refiner, other):
        one.kept = answer(one, following, IMAGES.cameras)
    np.testing.assert_array_equal(other.kept, refiner.kept)
    assert as_bytes(other.state_dict()) == as_bytes(refiner.state_dict())


def test_a_labeler_uses_it_and_keeps_its_state(case: Case) -> None:
    labeler, other = (
        PseudoLabeler(distance=SMALL_DISTANCE.build(), refiners=[case.build()]) for _ in range(2)
    )
    result = labeler(IMAGES.features.numpy(), IMAGES.cameras)
    assert is_valid(result.labels, 36)
    other.load_state_dict(labeler.state_dict())
    again = other(IMAGES.features.numpy(), IMAGES.cameras)
    np.testing.assert_array_equal(again.labels, labeler(IMAGES.features, IMAGES.cameras).labels)
