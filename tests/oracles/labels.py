"""Label making again, dense and in loops, from the formulas; slow and obvious."""

from __future__ import annotations

import numpy as np


def unit(features: np.ndarray) -> np.ndarray:
    rows = features.astype(np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cosine_matrix(features: np.ndarray) -> np.ndarray:
    """Float64 sums of the float32 rows, rounded once to float32, in [-1, 1]."""
    exact = features.astype(np.float64) @ features.astype(np.float64).T
    return np.clip(exact.astype(np.float32), -1, 1)


def nearest(similarity: np.ndarray, k: int) -> np.ndarray:
    """The k nearest of each row: itself, then by similarity, ties by index."""
    n = len(similarity)
    lists = []
    for i in range(n):
        order = sorted(range(n), key=lambda j: (j != i, -similarity[i, j], j))  # noqa: B023
        lists.append(order[:k])
    return np.array(lists)


def reciprocal(ranks: np.ndarray, i: int, k: int) -> set[int]:
    """R(i, k) = {j in the first k of i : i in the first k of j}."""
    return {int(j) for j in ranks[i, :k] if i in ranks[j, :k]}


def jaccard_of_weights(v: np.ndarray) -> np.ndarray:
    """1 - s / (2 - s), s = sum of min(V_i, V_j); at least 0."""
    n = len(v)
    distance = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            s = np.minimum(v[i], v[j]).sum()
            distance[i, j] = max(0.0, 1 - s / (2 - s))
    return distance


def jaccard(features: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """The k-reciprocal Jaccard distance with query expansion, f64 [N, N]."""
    n = len(features)
    similarity = cosine_matrix(features)
    k = min(k1, n)
    ranks = nearest(similarity, k)
    half = min(k, int(np.around(k1 / 2)) + 1)
    v = np.zeros((n, n))
    for i in range(n):
        own = reciprocal(ranks, i, k)
        expanded = set(own)
        for c in own:
            other = reciprocal(ranks, c, half)
            if 3 * len(other & own) > 2 * len(other):
                expanded |= other
        members = sorted(expanded)
        weight = np.exp(-(2 - 2 * similarity[i, members].astype(np.float64)))
        v[i, members] = weight / weight.sum()
    if k2 != 1:
        v = np.array([v[ranks[i, :k2]].mean(axis=0) for i in range(n)])
    return jaccard_of_weights(v)


def camera_aware_jaccard(
    features: np.ndarray, cameras: np.ndarray, k1: tuple[int, int], k2: tuple[int, int]
) -> np.ndarray:
    """CA-Jaccard with (same camera, other cameras) list lengths, f64 [N, N]."""
    n = len(features)
    similarity = cosine_matrix(features)

    def lists(same: bool, k: int) -> list[list[int]]:
        out = []
        for i in range(n):
            pool = [j for j in range(n) if (cameras[j] == cameras[i]) == same]
            out.append(sorted(pool, key=lambda j: (j != i, -similarity[i, j], j))[:k])  # noqa: B023
        return out

    intra, inter = lists(True, k1[0]), lists(False, k1[1])
    v = np.zeros((n, n))
    for i in range(n):
        own = {j for part in (intra, inter) for j in part[i] if i in part[j]}
        members = sorted(own)
        weight = np.exp(-(2 - 2 * similarity[i, members].astype(np.float64)))
        v[i, members] = weight / weight.sum()
    averaged = np.array([v[intra[i][: k2[0]] + inter[i][: k2[1]]].mean(axis=0) for i in range(n)])
    return jaccard_of_weights(averaged)


def dbscan(distance: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """Core images within eps are joined; a border image goes to the first core cluster near."""
    n = len(distance)
    near = distance <= eps
    core = near.sum(axis=1) >= min_samples
    labels = np.full(n, -1)
    count = 0
    for seed in range(n):
        if not core[seed] or labels[seed] >= 0:
            continue
        todo = [seed]
        while todo:
            i = todo.pop()
            labels[i] = count
            todo += [j for j in range(n) if near[i, j] and core[j] and labels[j] < 0]
        count += 1
    border = labels.copy()
    for i in range(n):
        if not core[i]:
            reached = [labels[j] for j in range(n) if near[j, i] and core[j]]
            border[i] = min(reached, default=-1)
    return by_first_image(border)


def by_first_image(labels: np.ndarray) -> np.ndarray:
    """Clusters renamed in the order of their first image."""
    names: dict[int, int] = {}
    return np.array([-1 if x < 0 else names.setdefault(int(x), len(names)) for x in labels])


def reliability(labels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 - |I and O| / |I or O| per image, outliers as clusters of their own."""
    n = len(labels)

    def cluster(of: np.ndarray, i: int) -> set[int]:
        return {i} if of[i] < 0 else {j for j in range(n) if of[j] == of[i]}

    out = np.empty(n)
    for i in range(n):
        a, b = cluster(labels, i), cluster(other, i)
        out[i] = 1 - len(a & b) / len(a | b)
    return out


def clouds(
    rng: np.random.Generator, images: int, size: int, centres: int, spread: float, copies: int
) -> np.ndarray:
    """Unit features around some centres, with exact duplicates and some images at random."""
    middle = rng.normal(size=(centres, size))
    rows = middle[rng.integers(0, centres, images)] + spread * rng.normal(size=(images, size))
    for _ in range(copies):
        rows[rng.integers(0, images)] = rows[rng.integers(0, images)]
    stray = rng.random(images) < 0.1
    rows[stray] = rng.normal(size=(int(stray.sum()), size))
    return unit(rows)


def small_clouds(seed: int, images: int, size: int = 12, copies: int = 6) -> np.ndarray:
    """`clouds` with about nine images per centre."""
    rng = np.random.default_rng(seed)
    return clouds(rng, images, size, max(1, images // 9), 0.6, copies)


def dense(graph) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The stored distances of a CSR graph as f32 [N, N]; 1 where there is none."""
    out = np.ones(graph.shape, np.float32)
    out[np.repeat(np.arange(len(out)), np.diff(graph.indptr)), graph.indices] = graph.data
    return out
