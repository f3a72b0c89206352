"""Names of clusters that stay where the individuals do, from one labelling to a later one."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components


def keep_names(labels: np.ndarray, before: np.ndarray, *, first_new: int = 0) -> np.ndarray:
    """Renames clusters as they were called before.

    Old and new clusters are paired one to one so that the images in both of a pair are most in all
    (Hungarian method); a pair shares an image at least. The new cluster of a pair gets the old
    name; each other one the next number that no cluster has had.

    Args:
        labels: i64 [N], clusters, -1 = outlier. Not changed.
        before: i64 [N], the cluster each image was in, -1 = none: an outlier, or a new image.
        first_new: no new name lies below it; nor below the names in `before`.
    Returns:
        i64 [N]; outliers stay -1.

    Cost: O(N log N), and the cube of the most clusters that overlaps connect.

    >>> keep_names(np.array([0, 0, 1, 1, 2, -1]), np.array([7, 7, 3, 7, -1, 3]))
    array([7, 7, 3, 3, 8, -1])
    """
    both = (labels >= 0) & (before >= 0)
    old, column = np.unique(before[both], return_inverse=True)
    count = int(labels.max(initial=-1)) + 1
    shape = (count, len(old))
    shared = sp.csr_array((np.ones(both.sum()), (labels[both], column)), shape=shape)
    names = np.full(count, -1)
    for rows, columns in _connected(shared):
        table = shared[rows][:, columns].toarray()
        for row, at in zip(*linear_sum_assignment(table, maximize=True), strict=True):
            if table[row, at] > 0:
                names[rows[row]] = old[columns[at]]
    new = np.unique(labels[labels >= 0])
    new = new[names[new] < 0]
    names[new] = max(int(before.max(initial=-1)) + 1, first_new) + np.arange(len(new))
    return np.where(labels >= 0, names[labels], -1) if count else labels.copy()


def _connected(shared: sp.csr_array) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of each part of a table whose entries lie in no row or column of another."""
    height = shared.shape[0]
    found, part = connected_components(sp.bmat([[None, shared], [shared.T, None]]), directed=False)
    order = np.argsort(part, kind="stable")
    parts = np.split(order, np.searchsorted(part[order], np.arange(1, found)))
    pairs = [(nodes[nodes < height], nodes[nodes >= height] - height) for nodes in parts]
    return [(rows, columns) for rows, columns in pairs if len(rows) and len(columns)]
