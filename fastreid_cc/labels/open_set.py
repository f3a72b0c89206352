"""From which cosine on an image shows somebody the gallery knows: a threshold without identities.

Clusters or tracklets stand in for individuals. Half of them, drawn at random, are enrolled by half
of their images; the other images ask. What the enrolled ones score against their own images and
all others against their nearest stranger are the two sides of a `Separation`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .similarities import Separation

PLATEAU = 0.01  # thresholds this near to the best accuracy count as good; their middle is taken
BLOCK = 4096
#: Share of `wrong_answers` from which groups are doubted.
MANY_WRONG = 1 / 6


class Calibrated(NamedTuple):
    """A threshold and what is to be expected of it.

    Args:
        threshold: cosine to the nearest image of the gallery from which its name is given.
        false_match_rate: share of images of new individuals that are given a name.
        miss_rate: share of images of known ones that are called new, or by another's name.
    """

    threshold: float
    false_match_rate: float
    miss_rate: float


def nearest_cosines(asking: np.ndarray, enrolled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(largest cosine f32 [Q], row of it i64 [Q]) of features [Q, D] to [G, D], G at least 1."""
    parts = [asking[i : i + BLOCK] @ enrolled.T for i in range(0, len(asking), BLOCK)]
    rows = [part.argmax(axis=1) for part in parts]
    best = [np.take_along_axis(p, r[:, None], 1)[:, 0] for p, r in zip(parts, rows, strict=True)]
    return np.concatenate([*best, []]).astype(np.float32), np.concatenate([*rows, []]).astype(int)


def separate_open_set(
    features: np.ndarray, labels: np.ndarray, *, draws: int = 8, seed: int = 0
) -> Separation:
    """Best cosines of images that ask a gallery: of enrolled clusters, and of all others.

    Args:
        features: f32 [N, D], unit rows.
        labels: i64 [N], clusters or tracklets, -1 = an outlier, which asks as a stranger.
        draws: galleries drawn.
    Returns:
        `within`: to the own cluster, -1 where another one is nearer (its name would be given);
        `between`: of images whose cluster is not enrolled, and of outliers.
    Raises:
        ValueError: with fewer than two clusters of two images.

    Cost: draws · O(N^2 D).
    """
    generator = np.random.default_rng(seed)
    clusters, sizes = np.unique(labels[labels >= 0], return_counts=True)
    clusters = clusters[sizes >= 2]
    if len(clusters) < 2:
        raise ValueError(f"{len(clusters)} clusters of two images or more; two are needed.")
    within, between = [], []
    for _ in range(draws):
        known = generator.permutation(clusters)[: (len(clusters) + 1) // 2]
        order = generator.permutation(len(labels))
        rank = _rank_within(labels[order])[np.argsort(order)]
        size = np.bincount(labels + 1)[labels + 1]
        is_known = np.isin(labels, known)
        enrolled = is_known & (rank < np.maximum(1, size // 2))
        gallery = np.flatnonzero(enrolled)
        best, row = nearest_cosines(features[~enrolled], features[gallery])
        asks_known, own = is_known[~enrolled], labels[~enrolled]
        right = labels[gallery[row]] == own
        within.append(np.where(right, best, np.float32(-1))[asks_known])
        between.append(best[~asks_known])
    return Separation(*(np.sort(np.concatenate(part)) for part in (within, between)))


def _rank_within(labels: np.ndarray) -> np.ndarray:
    """Of each place, how many places before it have the same label."""
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    starts = np.r_[0, np.flatnonzero(np.diff(sorted_labels)) + 1] if len(labels) else np.zeros(0)
    counts = np.diff(np.r_[starts, len(labels)]).astype(int)
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return ranks


def calibrate(found: Separation, *, max_false_match_rate: float | None = None) -> Calibrated:
    """The threshold of the fewest errors, known and new individuals asking equally often.

    Args:
        max_false_match_rate: instead the lowest threshold with at most this rate.

    All thresholds whose accuracy is within a point of the best are good; their middle is taken. The
    rates are those of the clusters: as true as these are. Of a gallery that holds far more
    individuals than there are clusters, more strangers find somebody like them.
    """
    if max_false_match_rate is None:
        values = np.unique(np.concatenate([found.within[found.within > -1], found.between]))
        misses = np.searchsorted(found.within, values) / max(1, len(found.within))
        matches = 1 - np.searchsorted(found.between, values) / max(1, len(found.between))
        error = (misses + matches) / 2
        good = values[error <= error.min() + PLATEAU]
        threshold = float((good.min() + good.max()) / 2)
    else:
        threshold = found.threshold(max_false_match_rate)
    return Calibrated(threshold, found.false_match_rate(threshold), found.miss_rate(threshold))


def wrong_answers(found: Separation) -> float:
    """Share of wrong answers by the best threshold, known and new individuals asking equally often.

    Above `MANY_WRONG` the groups are rather of poses or places than of individuals, or the network
    tells few of these apart. The limit was chosen on four folders, on three of which clusters meant
    something; docs/own-images.md has a fifth.
    """
    best = calibrate(found)
    return (best.false_match_rate + best.miss_rate) / 2
