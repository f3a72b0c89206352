"""Figures of features that need no identities: what a network before and after training is told by.

Features are f32 [N, D] with unit rows. Memory: a block of rows x N floats at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 1024


def _blocks(rows: np.ndarray, features: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(numbers of some rows, their cosines to all features, -inf to the feature of their number)"""
    for start in range(0, len(rows), BLOCK):
        numbers = np.arange(start, min(start + BLOCK, len(rows)))
        cosines = rows[numbers] @ features.T
        cosines[numbers - start, numbers] = -np.inf
        yield numbers, cosines


def nearest(features: np.ndarray, k: int, views: np.ndarray | None = None) -> np.ndarray:
    """i64 [N, min(k, N - 1)], the other images nearest to each, the nearest and lowest row first.

    Args:
        features: f32 [N, D]. k: how many.
        views: f32 [N, D], what to look from instead; the image of a view is left out all the same.

    Cost: O(N^2 (D + log N)) time.
    """
    k = min(k, len(features) - 1)
    rows = features if views is None else views
    found = [np.argsort(-c, axis=1, kind="stable")[:, :k] for _, c in _blocks(rows, features)]
    return np.concatenate(found)


def shared_links(one: np.ndarray, other: np.ndarray) -> float:
    """Mean share of the k neighbours in two lists i64 [N, k] of the same images that agree."""
    count = len(one)
    keys = np.arange(count)[:, None] * count
    return float(np.isin(one + keys, other + keys).mean())


def view_rank(features: np.ndarray, views: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Mean reciprocal rank of an image among all, by cosine to its changed view; in (0, 1].

    Others as near as the image itself come before it, so features that are all the same give 1 / N,
    and features that are no numbers no more.

    Args:
        groups: i64 [N]; images of one group do not come before each other. -1 = in none.

    Cost: O(N^2 D) time.
    """
    own = np.einsum("nd,nd->n", features, views)
    groups = np.full(len(features), -1) if groups is None else groups
    ahead = []
    for rows, cosines in _blocks(views, features):
        is_grouped = (groups[rows, None] == groups) & (groups >= 0)
        ahead.append((~(cosines < own[rows, None]) & ~is_grouped).sum(axis=1))
    return float((1 / (1 + np.concatenate(ahead))).mean())


def view_agreement(features: np.ndarray, views: np.ndarray, k: int = 10) -> float:
    """Mean share of the k nearest others that an image and its changed view have in common.

    1 if the change does not matter; k / (N - 1) by chance. Cost: twice `nearest`.
    """
    return shared_links(nearest(features, k), nearest(features, k, views))


def reciprocity(features: np.ndarray, k: int = 10) -> float:
    """Share of the links to the k nearest others that go both ways. Cost: `nearest`."""
    found = nearest(features, k)
    count = len(features)
    links = np.arange(count)[:, None] * count + found
    back = found * count + np.arange(count)[:, None]
    return float(np.isin(back, links).mean())


def kept_links(before: np.ndarray, after: np.ndarray, k: int = 10) -> float:
    """Share of the reciprocal links among the k nearest before that are links after.

    Args:
        before, after: f32 [N, D] and [N, E], features of the same images by two networks.
    Returns:
        1 if all are kept; nan if there was none. Cost: twice `nearest`.
    """
    old, new = nearest(before, k), nearest(after, k)
    count = len(before)
    rows = np.arange(count)[:, None]
    links = rows * count + old
    both = links[np.isin(old * count + rows, links)]
    return float(np.isin(both, rows * count + new).mean()) if len(both) else float("nan")


def cross_camera_share(features: np.ndarray, cameras: np.ndarray, k: int = 10) -> float:
    """Share of the k nearest others that another camera took, over the share by chance.

    1 if features do not know cameras, 0 if they know nothing else; nan with one camera.
    Args:
        cameras: i64 [N].
    """
    counts = np.unique(cameras, return_counts=True)[1]
    by_chance = 1 - float((counts * (counts - 1)).sum()) / (len(cameras) * (len(cameras) - 1))
    if not by_chance:
        return float("nan")
    found = cameras[nearest(features, k)] != cameras[:, None]
    return float(found.mean()) / by_chance


def effective_rank(features: np.ndarray) -> float:
    """exp of the entropy of the singular values of features [N, D], from 1 to min(N, D).

    Features that are all 0 have rank 1.

    Source: Garrido et al., RankMe, arXiv:2210.02885, eq. 1-2 (there without scaling to unit rows).
    Cost: O(N D^2) time.
    """
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    share = values[values > 0] / values.sum() if values.any() else np.ones(1)
    return float(np.exp(-(share * np.log(share)).sum()))


def neighbor_density(features: np.ndarray, temperature: float = 0.05) -> float:
    """Mean entropy of the softmax over the cosines to all others: the larger, the denser.

    Source: Saito et al., Tune it the Right Way, arXiv:2108.10860, of features instead of class
    probabilities. Cost: O(N^2 D) time.
    """
    found = []
    for _, cosines in _blocks(features, features):
        scaled = (cosines - cosines.max(axis=1, keepdims=True)) / temperature
        weights = np.exp(scaled)
        total = weights.sum(axis=1)
        scaled[np.isinf(scaled)] = 0
        found.append(np.log(total) - (weights * scaled).sum(axis=1) / total)
    return float(np.concatenate(found).mean())


def neighbor_contrast(features: np.ndarray, k: int = 10) -> float:
    """How far the mean cosine to the k nearest others lies above that to all, in its deviations.

    Cost: O(N^2 D) time.
    """
    k, found = min(k, len(features) - 1), []
    for _, cosines in _blocks(features, features):
        near = np.sort(cosines, axis=1)[:, -k:].mean(axis=1)
        finite = np.isfinite(cosines)
        mean = np.where(finite, cosines, 0).sum(axis=1) / finite.sum(axis=1)
        square = np.where(finite, cosines - mean[:, None], 0) ** 2
        deviation = np.sqrt(square.sum(axis=1) / finite.sum(axis=1))
        found.append((near - mean) / np.maximum(deviation, 1e-12))
    return float(np.concatenate(found).mean())


def intrinsic_dimension(features: np.ndarray) -> float:
    """Dimension of the manifold of features, from each image's two nearest distances.

    Source: Facco et al., TwoNN, Scientific Reports 7:12140 (2017), its maximum-likelihood form.
    """
    logs = []
    for _, cosines in _blocks(features, features):
        two = np.sqrt(np.maximum(2 - 2 * np.sort(cosines, axis=1)[:, :-3:-1], 1e-12))
        logs.append(np.log(two[:, 1] / two[:, 0]))
    return float(1 / max(np.concatenate(logs).mean(), 1e-12))
