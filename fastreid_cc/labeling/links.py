"""Pairs of images that must, or must not, share a cluster, and labels that honour them exactly.

Neighbours are sought by features drawn to the mean of what belongs together. Distances within that
become zero, and what lies between images that must not be together leaves the sparse graph, so that
a clusterer of distances sees both. Density and chains of third images may still pull apart what
belongs together or join what does not; `LinkedGraph.labels` puts that right in any labelling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..labels.numbering import number_by_first_image


@dataclass(frozen=True)
class Links:
    """Rows that belong together, and rows that do not.

    Args:
        must: i64 [M, 2]. Images joined by a chain of them are a group: one individual.
        cannot: i64 [C, 2]. It holds for the groups of the two rows.
        figures: what is told in the log of how they came about.
        pool: how far `pooled` draws features to the mean of their group, in [0, 1].
    """

    must: np.ndarray
    cannot: np.ndarray
    figures: Mapping[str, int] = field(default_factory=dict)
    pool: float = 0.0

    def groups(self, images: int) -> np.ndarray:
        """i64 [N], the group of each of N images, from 0; an image without a must is one alone.

        Raises:
            ValueError: if a `cannot` lies within a group.
        """
        one = np.ones(len(self.must))
        chain = sp.coo_array((one, (self.must[:, 0], self.must[:, 1])), shape=(images, images))
        found = connected_components(chain, directed=False)[1].astype(np.int64)
        torn = self.cannot[found[self.cannot[:, 0]] == found[self.cannot[:, 1]]]
        if len(torn):
            raise ValueError(f"images {torn[:5].tolist()} must, and must not, be together")
        return found

    def pooled(self, rows: Tensor) -> Tensor:
        """Unit rows f32 [N, D], those of a group of several images drawn to the group's mean.

        Row i becomes (1 - pool) x_i + pool mean, at unit length (the mean too), so that neighbours
        are sought by what a group looks like on the whole.

        Args:
            rows: f32 [N, D], unit rows; left alone.
        Cost: O(N D).
        """
        groups = self.groups(len(rows))
        sizes = np.bincount(groups)
        drawn = np.flatnonzero(sizes[groups] > 1)
        if not self.pool or not len(drawn):
            return rows
        _, own = np.unique(groups[drawn], return_inverse=True)
        one = np.ones(len(drawn), np.float32)
        members = sp.csr_array((one, (own, np.arange(len(drawn)))))
        at = torch.from_numpy(drawn).to(rows.device)
        means = torch.from_numpy(members @ rows[at].cpu().numpy()).to(rows.device)
        means = F.normalize(means)[torch.from_numpy(own).to(rows.device)]
        found = rows.clone()
        found[at] = F.normalize((1 - self.pool) * rows[at] + self.pool * means)
        return found


class Sets:
    """Sets of nodes that grow by joins; a join that would bring two enemies together is refused.

    Args:
        size: nodes, each a set of its own at first.
        names: node -> names by which it has enemies; nodes without any may be left out.
        enemies: name -> the names it must not share a set with; symmetric.

    Cost: nearly constant time for a join of sets without names; else at most the enemies of the
    smaller set's names.

    >>> sets = Sets(3, {0: {7}, 2: {9}}, {7: {9}, 9: {7}})
    >>> sets.join(0, 1), sets.join(1, 2), sets.roots()
    (True, False, array([0, 0, 2]))
    """

    def __init__(
        self, size: int, names: Mapping[int, set[int]], enemies: Mapping[int, set[int]]
    ) -> None:
        self.parent = list(range(size))
        self.names = dict(names)
        self.enemies = enemies

    def find(self, node: int) -> int:
        """The node that stands for the set."""
        parent = self.parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(self, a: int, b: int) -> bool:
        """Makes one set of two; False where enemies would meet."""
        a, b = sorted((self.find(a), self.find(b)))
        if a == b:
            return True
        x, y = self.names.get(a), self.names.get(b)
        if x and y:
            few, many = (x, y) if len(x) < len(y) else (y, x)
            if any(not self.enemies[name].isdisjoint(many) for name in few):
                return False
        self.parent[b] = a
        if y:
            self.names[a] = (x | y) if x else y
        return True

    def join_all(self, pairs: np.ndarray) -> int:
        """Joins pairs i64 [M, 2] in their order; how many were refused."""
        return sum(not self.join(a, b) for a, b in pairs.tolist())

    def roots(self) -> np.ndarray:
        """i64 [size], the node that stands for each node's set."""
        return np.fromiter(map(self.find, range(len(self.parent))), np.int64, len(self.parent))


def enemies_of(pairs: Iterable[tuple[int, int]]) -> dict[int, set[int]]:
    """Name -> names it must not meet, from pairs."""
    found: dict[int, set[int]] = {}
    for a, b in pairs:
        found.setdefault(a, set()).add(b)
        found.setdefault(b, set()).add(a)
    return found


class LinkedGraph:
    """Distances with links in them, and labels made to honour the links.

    Args:
        links: the links.
        graph: CSR f32 [N, N], symmetric, absent = farther. Not changed.

    Attributes:
        graph: the same, without what lay between groups that must not share a cluster, and with
            zeros in the place of distances within a group. None is added: a zero between all
            images of a tracklet makes each of them dense, and one alike pair of two tracklets then
            joins them (docs/labels.md has figures).

    Raises:
        ValueError: if the links contradict each other.

    Cost: O(E + M + C log C) time for E stored distances, a few copies of them; nothing is N x N.
    """

    def __init__(self, links: Links, graph: sp.csr_array) -> None:
        self.images, self.figures = graph.shape[0], links.figures
        self.groups = links.groups(self.images)
        self.cannot = np.unique(np.sort(self.groups[links.cannot], axis=1), axis=0)
        self.graph = self._linked(graph)

    def _linked(self, graph: sp.csr_array) -> sp.csr_array:
        rows = np.repeat(np.arange(self.images), np.diff(graph.indptr))
        a, b = self.groups[rows], self.groups[graph.indices]
        width = np.array([self.images, 1])
        pair = np.column_stack([np.minimum(a, b), np.maximum(a, b)]) @ width
        kept = ~np.isin(pair, self.cannot @ width)
        data = np.where(a == b, np.float32(0), graph.data)[kept]
        counts = np.bincount(rows[kept], minlength=self.images)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(graph.indptr.dtype)
        return sp.csr_array((data, graph.indices[kept], indptr), shape=graph.shape)

    def labels(self, labels: np.ndarray, eps: float | None) -> np.ndarray:
        """The labels, changed as little as honours every link.

        1. A group takes the label that most of its images have, outliers not counted; among equals
           that of the image nearest to it, then the lower one. A group of outliers stays out.
        2. A cluster that holds two groups which must not meet is taken apart: its groups join anew
           by its pairs up to `eps`, ascending (ties by row), and a join that would bring such two
           together is left out (single linkage under constraints). The pieces are the new
           clusters; a piece of one image is an outlier.

        Args:
            labels: i64 [N], -1 = outlier. Not changed.
            eps: radius they were found at; None = all distances that are stored.
        Returns:
            i64 [N], clusters numbered by first image. Labels that honour all links come back as
            they are.

        Cost: step 2 sorts the pairs of the clusters that it takes apart.
        """
        found = self._divided(self._together(labels, eps), eps)
        return found if found is labels else number_by_first_image(found)

    def _near(self, eps: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(i, j, distance) of the stored pairs of different groups within the radius."""
        rows = np.repeat(np.arange(self.images), np.diff(self.graph.indptr))
        cols = self.graph.indices
        near = self.groups[rows] != self.groups[cols]
        near &= self.graph.data <= np.float32(np.inf if eps is None else eps)
        return rows[near], cols[near].astype(np.int64), self.graph.data[near]

    def _together(self, labels: np.ndarray, eps: float | None) -> np.ndarray:
        groups, width = self.groups, int(labels.max(initial=-1)) + 1
        kept = labels >= 0
        votes, counts = np.unique(groups[kept] * width + labels[kept], return_counts=True)
        group, label = np.divmod(votes, max(width, 1))
        distance = np.full(len(votes), np.inf, np.float32)
        if (group[1:] == group[:-1]).any():
            i, j, far = self._near(eps)
            i, j, far = i[labels[j] >= 0], j[labels[j] >= 0], far[labels[j] >= 0]
            vote = groups[i] * width + labels[j]
            at = np.minimum(np.searchsorted(votes, vote), len(votes) - 1)
            np.minimum.at(distance, at[votes[at] == vote], far[votes[at] == vote])
        order = np.lexsort((label, distance, -counts, group))
        first = order[np.unique(group[order], return_index=True)[1]]
        of_group = np.full(self.images, -1, np.int64)
        of_group[group[first]] = label[first]
        found = of_group[groups]
        return labels if np.array_equal(found, labels) else found

    def _divided(self, labels: np.ndarray, eps: float | None) -> np.ndarray:
        groups = self.groups
        of_group = np.full(self.images, -1, np.int64)
        of_group[groups] = labels
        left, right = of_group[self.cannot].T
        torn = np.unique(left[(left == right) & (left >= 0)])
        if not len(torn):
            return labels
        i, j, distance = self._near(eps)
        ours = (i < j) & (labels[i] == labels[j]) & np.isin(labels[i], torn)
        i, j, distance = i[ours], j[ours], distance[ours]
        order = np.lexsort((j, i, distance))
        inside = self.cannot[(left == right) & (left >= 0)]
        enemies = enemies_of(map(tuple, inside.tolist()))
        sets = Sets(self.images, {name: {name} for name in enemies}, enemies)
        sets.join_all(np.column_stack([groups[i], groups[j]])[order])
        changed = np.isin(labels, torn)
        piece = sets.roots()[groups[changed]]
        piece[np.bincount(piece)[piece] < 2] = -1
        found = labels.copy()
        found[changed] = np.where(piece < 0, -1, piece + labels.max() + 1)
        return found
