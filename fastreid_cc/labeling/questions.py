"""Which pairs of images to show to a person, so that a few answers change a labelling most.

An answer about two images acts on the groups they stand for, once it is a link (see `links`): a yes
between two clusters joins them, a no between the halves of a cluster takes it apart. So a question
is worth what it would move: (pairs of images between the groups) x (chance that the labelling is
wrong about them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..labels.similarities import separate
from .answers import chains
from .links import Links, Sets, enemies_of

NEAREST = 5  # other groups that a cluster or an outlier may be joined to
LEVELS = 6  # a cluster is halved, its halves are, ...: at most so often
FALSE_MATCHES = 0.05  # the threshold lets so many pairs of neighbouring clusters pass
WIDTH = 0.1  # of the logistic function, in cosines
TRUST = 4.0  # widths by which the threshold may well be wrong before there are answers
JOIN = 2.0  # a pair that a yes joins counts so much more than one that a no parts
_ROWS = 4096
_NONE = np.empty((0, 2), np.int64)


@dataclass(frozen=True, eq=False)
class Question:
    """Are these two images of one individual?

    Args:
        first, second: rows of the images, each the most typical one of its group.
        groups: rows of the images they stand for, most typical first.
        kind: "join": two clusters or outliers, now apart. "split": two parts of one cluster.
        chance: of a yes, by the similarity of the two images.
        gain: what `choose_questions` orders by.
    """

    first: int
    second: int
    groups: tuple[np.ndarray, np.ndarray]
    kind: Literal["join", "split"]
    chance: float
    gain: float


def choose_questions(
    features: np.ndarray,
    labels: np.ndarray,
    count: int,
    *,
    same: np.ndarray = _NONE,
    other: np.ndarray = _NONE,
    links: Links | None = None,
) -> list[Question]:
    """The questions of most gain, none of which would follow from the others.

    Groups are clusters, outliers (each alone) and parts of clusters, halved again and again by
    two-means. Asked are the most typical images x, y of

    * two clusters or outliers A, B, one among the NEAREST of the other: gain JOIN |A||B| p;
    * the halves A, B of a cluster, or of a part of one:               gain |A||B| (1 - p),

    with the chance p = 1 / (1 + exp(-(<x, y> - t) / WIDTH)). The threshold t is that of `separate`
    for FALSE_MATCHES, moved to where the answers given so far are likeliest under a normal prior of
    TRUST widths. JOIN: a pair joined rightly adds in the ratio 2 - F1, one parted rightly in the
    ratio F1 to the pairwise F1; twice as much at 2/3.

    Args:
        features: f32 [N, D], unit rows.
        labels: i64 [N], -1 = outlier.
        count: questions at most.
        same, other: i64 [A, 2], [B, 2], rows of the answers yes and no.
        links: what else is known, e.g. by tracklets.
    Returns:
        Most gain first, ties by row. Nothing that follows for any images of the two groups from
        answers and links, by chains of yes and one no; no circle of pairs, so that two questions
        never answer a third. The same input gives the same questions.

    Cost: O(H² D) time in blocks of 4096 x H floats for H clusters and outliers; O(N D) for each
    of LEVELS halvings.
    """
    groups = [*_clusters(labels), *np.flatnonzero(labels < 0)[:, None]]
    must, cannot = (same, other) if links is None else (links.must, links.cannot)
    told = _Told(len(labels), np.concatenate([same, must]), np.concatenate([other, cannot]))
    t = threshold(features, labels, same, other)
    found = [
        _question(features, groups[a], groups[b], "join", t)
        for a, b in _near(features, groups)
        if not told(groups[a], groups[b])
    ]
    for members in groups:
        for a, b in _halves(features, members, LEVELS):
            if not told(a, b):
                found.append(_question(features, a, b, "split", t))
    found.sort(key=lambda asked: (-asked.gain, asked.first, asked.second))
    chosen: list[Question] = []
    images = Sets(len(labels), {}, {})
    for asked in found:
        if len(chosen) < count and images.find(asked.first) != images.find(asked.second):
            images.join(asked.first, asked.second)
            chosen.append(asked)
    return chosen


def threshold(
    features: np.ndarray, labels: np.ndarray, same: np.ndarray, other: np.ndarray
) -> float:
    """The cosine at which a yes is as likely as a no; 0.5 without clusters and answers.

    Arguments as in `choose_questions`. Found on a grid of a tenth of WIDTH.
    """
    start = separate(features, labels).threshold(FALSE_MATCHES)
    start = start if np.isfinite(start) else 0.5
    asked = np.concatenate([same, other])
    if not len(asked):
        return start
    yes = np.repeat([1.0, 0.0], [len(same), len(other)])
    grid = start + WIDTH * np.linspace(-10, 10, 201)
    cosine = np.einsum("nd,nd->n", features[asked[:, 0]], features[asked[:, 1]])
    z = (cosine - grid[:, None]) / WIDTH  # [201, A + B]
    loss = (np.logaddexp(0, z) - yes * z).sum(1) + ((grid - start) / (WIDTH * TRUST)) ** 2 / 2
    return float(grid[loss.argmin()])


class _Told:
    """Whether it is known, by chains of yes and one no, how two groups are related."""

    def __init__(self, images: int, same: np.ndarray, other: np.ndarray) -> None:
        self.chain = chains(same, images)
        self.in_answer = np.zeros(images, bool)
        self.in_answer[np.concatenate([same, other]).ravel()] = True
        self.enemies = enemies_of(map(tuple, self.chain[other].tolist()))

    def __call__(self, a: np.ndarray, b: np.ndarray) -> bool:
        one, two = (set(self.chain[rows[self.in_answer[rows]]].tolist()) for rows in (a, b))
        return not one.isdisjoint(two) or any(
            not self.enemies[chain].isdisjoint(two) for chain in one if chain in self.enemies
        )


def _clusters(labels: np.ndarray) -> list[np.ndarray]:
    """Rows of each cluster, ascending, clusters in the order of their labels."""
    order = np.argsort(labels, kind="stable")[(labels < 0).sum() :]
    if not len(order):
        return []
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _typical(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows, from the one nearest to their mean on."""
    return rows[np.argsort(-(features[rows] @ features[rows].mean(axis=0)), kind="stable")]


def _question(
    features: np.ndarray, a: np.ndarray, b: np.ndarray, kind: Literal["join", "split"], t: float
) -> Question:
    groups = sorted((_typical(features, rows) for rows in (a, b)), key=lambda rows: int(rows[0]))
    first, second = (int(rows[0]) for rows in groups)
    z = (float(features[first] @ features[second]) - t) / WIDTH
    chance = 1 / (1 + np.exp(-z))
    moved = JOIN * chance if kind == "join" else 1 - chance
    return Question(
        first, second, (groups[0], groups[1]), kind, float(chance), float(len(a) * len(b) * moved)
    )


def _near(features: np.ndarray, groups: list[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs a < b of groups, one among the NEAREST of the other by the mean cosine of images."""
    k = min(NEAREST, len(groups) - 1)
    if k < 1:
        return []
    means = np.stack([features[rows].mean(axis=0) for rows in groups])
    found: set[tuple[int, int]] = set()
    for start in range(0, len(groups), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(groups)))
        cosine = means[rows] @ means.T
        cosine[rows - start, rows] = -np.inf
        near = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        pairs = np.column_stack([np.repeat(rows, k), near.ravel()])
        found |= set(map(tuple, np.sort(pairs, axis=1).tolist()))
    return sorted(found)


def _halves(
    features: np.ndarray, rows: np.ndarray, levels: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The halves of some images, then those of each half, `levels` deep."""
    side = _two_means(features[rows]) if levels and len(rows) > 1 else np.zeros(len(rows), bool)
    if not side.any() or side.all():
        return
    a, b = rows[~side], rows[side]
    yield a, b
    yield from _halves(features, a, levels - 1)
    yield from _halves(features, b, levels - 1)


def _two_means(x: np.ndarray, steps: int = 10) -> np.ndarray:
    """bool [M], the half of each unit row; begins with the row least like the mean and its least.

    Rows that are all alike stay together.
    """
    one = x[(x @ x.mean(axis=0)).argmin()]
    two = x[(x @ one).argmin()]
    side = x @ one < x @ two
    for _ in range(steps):
        if not side.any() or side.all():
            break
        one, two = (
            mean / max(float(np.linalg.norm(mean)), 1e-12)
            for mean in (x[~side].mean(axis=0), x[side].mean(axis=0))
        )
        moved = x @ one < x @ two
        if (moved == side).all():
            break
        side = moved
    return side
