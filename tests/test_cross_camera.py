"""The refiner that joins clusters of different cameras: its rule, an oracle, what it leaves."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from oracles.labels import by_first_image

from fastreid_cc.data.tracks import Tracks
from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.labeling.answers import Answers
from fastreid_cc.labeling.distances.jaccard import JaccardDistance
from fastreid_cc.labeling.refiners.cross_camera import CrossCamera
from fastreid_cc.labeling.tracklets import Linker, LinkOptions

A, B = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])  # labels, cameras


def angles(*degrees: float) -> torch.Tensor:
    rad = np.radians(degrees)
    return torch.tensor(np.stack([np.cos(rad), np.sin(rad)], 1), dtype=torch.float32)


def joined(features: torch.Tensor, labels: np.ndarray, cameras: np.ndarray) -> list[int]:
    return CrossCamera().refine_with(features, labels, {}, cameras).tolist()


def slow(features: np.ndarray, labels: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """The rule in loops: one round after the other, all pairs of a round at once."""
    labels = by_first_image(labels.copy())
    while True:
        names = sorted(set(labels[labels >= 0].tolist()))
        mean, seen = {}, {}
        for c in names:
            total = features[labels == c].astype(np.float64).sum(0)
            mean[c] = total / max(np.linalg.norm(total), 1e-12)
            seen[c] = set(cameras[labels == c].tolist())
        nearest = {}
        for c in names:
            others = [o for o in names if o != c]
            if others:
                nearest[c] = max(others, key=lambda o: (np.float32(mean[c] @ mean[o]), -o))
        pairs = [
            (a, b)
            for a, b in nearest.items()
            if a < b and nearest[b] == a and not seen[a] & seen[b]
        ]
        if not pairs:
            return labels
        for a, b in pairs:
            labels[labels == b] = a
        labels = by_first_image(labels)


def test_two_clusters_of_two_cameras_that_are_nearest_are_one() -> None:
    assert joined(angles(0, 2, 10, 12), A, B) == [0, 0, 0, 0]
    assert joined(angles(0, 2, 10, 12), A, np.array([0, 1, 1, 1])) == [0, 0, 1, 1]  # both by 1


def test_one_that_has_a_nearer_cluster_in_its_own_camera_stays() -> None:
    labels, cameras = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1])
    # the second camera's clusters are each other's nearest
    assert joined(angles(0, 2, 30, 32, 40, 42), labels, cameras) == [0, 0, 1, 1, 2, 2]
    assert joined(angles(0, 2, 10, 12, 60, 62), labels, cameras) == [0, 0, 0, 0, 1, 1]


def test_it_goes_on_until_no_pair_is_left() -> None:
    """Three cameras: two parts meet first, then the third."""
    labels, cameras = np.repeat(np.arange(3), 2), np.repeat(np.arange(3), 2)
    assert joined(angles(0, 1, 10, 11, 30, 31), labels, cameras) == [0] * 6


def test_outliers_stay_and_without_features_or_cameras_nothing_is_joined() -> None:
    labels = np.array([0, 0, -1, 1, 1])
    features, cameras = angles(0, 2, 5, 10, 12), np.array([0, 0, 0, 1, 1])
    assert joined(features, labels, cameras) == [0, 0, -1, 0, 0]
    with pytest.raises(ValueError, match="cross_camera, which needs the cameras"):
        CrossCamera().refine_with(features, labels, {}, None)
    assert CrossCamera().refine(labels, {}, cameras).tolist() == labels.tolist()
    assert joined(features, labels, np.zeros(5, np.int64)) == labels.tolist()


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 8), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_it_is_the_rule_in_loops(seed: int, images: int, clusters: int, cameras: int) -> None:
    rng = np.random.default_rng(seed)
    features = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(images, 6))), dim=1)
    labels = by_first_image(rng.integers(-1, clusters, images))
    camera = rng.integers(0, cameras, images)
    found = joined(features.float(), labels, camera)
    assert found == slow(features.float().numpy(), labels, camera).tolist()


def test_tracklets_of_a_person_that_did_not_meet_are_joined_and_links_are_kept() -> None:
    """Six people, a track of eight images in each of two cameras, far apart across them."""
    rng = np.random.default_rng(0)
    people, cameras = np.repeat(np.arange(6), 16), np.tile(np.repeat([0, 1], 8), 6)
    centre = rng.normal(size=(6, 16)) + 0.0
    shift = rng.normal(size=(6, 2, 16)) * 0.55
    x = centre[people] + shift[people, cameras] + 0.15 * rng.normal(size=(96, 16))
    tracks = Tracks(2 * people + cameras, np.tile(np.arange(8.0), 12))
    features = torch.nn.functional.normalize(torch.from_numpy(x).float(), dim=1)
    found = {}
    for name, refiners in {"plain": [], "joined": [CrossCamera()]}.items():
        distance = JaccardDistance(k1=8, k2=2)
        labeler = PseudoLabeler(distance=distance, refiners=refiners)
        linker = Linker(LinkOptions(overlap=False, cut=0.0), cameras, tracks)
        found[name] = labeler(features, cameras, links=linker(features)).labels
    assert found["plain"].max() + 1 == 12 and found["joined"].max() + 1 < 9
    for labels in found.values():  # every track is in one cluster
        assert all(len(set(labels[tracks.tracklets == t])) == 1 for t in range(12))
    # a "no" between two tracks that it joins is honoured
    pair = next((t, t + 1) for t in range(0, 12, 2) if met(found["joined"], tracks, t, t + 1))
    rows = np.array([[np.flatnonzero(tracks.tracklets == t)[0] for t in pair]])
    options = LinkOptions(overlap=False, cut=0.0)
    linker = Linker(options, cameras, tracks, Answers(np.empty((0, 2), np.int64), rows))
    labeler = PseudoLabeler(distance=JaccardDistance(k1=8, k2=2), refiners=[CrossCamera()])
    labels = labeler(features, cameras, links=linker(features)).labels
    assert not met(labels, tracks, *pair)


def met(labels: np.ndarray, tracks: Tracks, one: int, other: int) -> bool:
    first, second = (set(labels[tracks.tracklets == t].tolist()) for t in (one, other))
    return first == second != {-1}
