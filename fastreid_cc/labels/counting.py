"""How many individuals are on images nobody has named, from some that somebody has.

No cut through a tree of clusters gives the right number by itself: views and cameras split
individuals, alike ones merge. But what a cut makes of named individuals tells what it makes of
others of the same kind. The estimate of a cut is C(unnamed) · K / C(named), with C the clusters it
leaves and K the named individuals. Draws of named individuals that take turns in being unnamed
tell which cuts are good, and how wrong they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

CUTS = 25  # heights tried of each distance
BEST = 15  # cuts, of all distances, whose estimates are averaged
FEWEST = 3  # named individuals
NORMAL = 1.645  # standard deviations either side that hold 90 %


class Count(NamedTuple):
    """Number of individuals: the estimate, and ends of an interval meant to hold it in 9 of 10.

    The ends are counts themselves: the outermost whole numbers that it holds.
    """

    estimate: float
    low: int
    high: int


def cosine_distances(features: np.ndarray) -> np.ndarray:
    """f32 [N, N] of features f32 [N, D] of unit length."""
    return np.clip(1 - features @ features.T, 0, 2)


def count_individuals(
    distances: Sequence[np.ndarray],
    names: np.ndarray,
    *,
    draws: int = 20,
    seed: int = 0,
) -> Count:
    """Individuals among the images without a name.

    Args:
        distances: each f32 [N, N], symmetric: several ways to compare the same N images.
        names: i64 [N], individual of each image, -1 = not named.
        draws: partitions of the named individuals, a quarter to three quarters as unnamed.

    Raises:
        ValueError: with fewer than three named individuals, or nothing to count.

    Supposes that those without names were photographed like the named ones: as often, from as many
    sides. Cost: draws · N^2 (average linkage) for each distance.
    """
    named, unnamed = np.flatnonzero(names >= 0), np.flatnonzero(names < 0)
    people = np.unique(names[named])
    if len(people) < FEWEST or not len(unnamed):
        raise ValueError(
            f"{len(people)} named individuals and {len(unnamed)} images without a name; at least"
            f" {FEWEST} and 1 are needed."
        )
    generator = np.random.default_rng(seed)
    sizes = (len(people) * generator.uniform(0.25, 0.75, draws)).round().astype(int)
    parts = [
        np.split(generator.permutation(people), [size])
        for size in np.clip(sizes, 1, len(people) - 1)
    ]
    errors, estimates = [], []
    for distance in distances:
        heights = _heights(distance, named)
        inside = heights[heights < 0.999 * heights.max(initial=0.0)]
        cuts = np.r_[-1, np.quantile(inside, np.linspace(0.05, 1, CUTS)) if len(inside) else []]
        cuts[_clusters(heights, cuts) < 0.7 * len(people)] = -1  # nothing is left to count there
        estimates.append(_ratio(_heights(distance, unnamed), heights, cuts) * len(people))
        errors.append([_error(distance, names, first, second, cuts) for first, second in parts])
    by_cut, tried = np.concatenate(errors, axis=1), np.concatenate(estimates)
    best = np.argsort((by_cut**2).mean(axis=0), kind="stable")[:BEST]
    estimate = float(np.exp(np.log(tried[best]).mean()))
    unit = float(np.sqrt((by_cut[:, best].mean(axis=1) ** 2).mean()))
    spread = unit * np.sqrt(1 / len(people) + 1 / max(1.0, estimate))
    low, high = (estimate * math.exp(side * NORMAL * spread) for side in (-1, 1))
    nearest = round(estimate)
    return Count(estimate, min(math.ceil(low), nearest), max(math.floor(high), nearest))


def _heights(distance: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Heights at which average linkage joins some of the images, ascending."""
    if len(rows) < 2:
        return np.zeros(0)
    part = distance[np.ix_(rows, rows)].astype(np.float64)
    np.fill_diagonal(part, 0)
    return np.sort(linkage(squareform(part, checks=False), "average")[:, 2])


def _clusters(heights: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return len(heights) + 1 - np.searchsorted(heights, cuts, side="right")


def _ratio(heights: np.ndarray, other: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return np.asarray(_clusters(heights, cuts) / _clusters(other, cuts))


def _error(
    distance: np.ndarray,
    names: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    cuts: np.ndarray,
) -> np.ndarray:
    """Log of estimate by truth at each cut, in units of sqrt(1 / K + 1 / truth)."""
    one, other = (np.flatnonzero(np.isin(names, who)) for who in (first, second))
    ratio = _ratio(_heights(distance, other), _heights(distance, one), cuts)
    unit = np.sqrt(1 / len(first) + 1 / len(second))
    return np.asarray(np.log(ratio * len(first) / len(second)) / unit)
