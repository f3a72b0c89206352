"""Clusters keep their names where the individuals stay."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from fastreid_cc.labels.kept_names import keep_names


def best_overlap(labels, before):
    """The most images that any one-to-one pairing of clusters shares, by trying all."""
    new, old = (np.unique(values[values >= 0]) for values in (labels, before))
    table = [[((labels == a) & (before == b)).sum() for b in old] for a in new]
    table = np.pad(np.array(table), ((0, 0), (0, len(new))))
    ways = permutations(range(table.shape[1]), len(new))
    return max(sum(table[row, at] for row, at in enumerate(way)) for way in ways)


@pytest.mark.parametrize("seed", range(5))
def test_as_many_images_as_possible_keep_their_clusters_name(seed):
    generator = np.random.default_rng(seed)
    before = generator.integers(-1, 5, 40) * 3
    before[before < 0] = -1
    labels = np.where(generator.random(40) < 0.6, np.maximum(before, 0) // 3, 0)
    labels = np.where(generator.random(40) < 0.3, generator.integers(-1, 5, 40), labels)
    labels[:5] = range(5)
    found = keep_names(labels, before)
    assert ((found == before) & (found >= 0)).sum() == best_overlap(labels, before)
    pairs = set(zip(labels[labels >= 0].tolist(), found[labels >= 0].tolist(), strict=True))
    assert len(pairs) == len({new for _, new in pairs}) == 5  # renamed, nothing else
    np.testing.assert_array_equal(found < 0, labels < 0)


def test_new_individuals_get_numbers_that_nobody_has_had():
    labels, before = np.array([0, 0, 1, 1, 2, 2]), np.array([4, 4, -1, -1, -1, 4])
    np.testing.assert_array_equal(keep_names(labels, before), [4, 4, 5, 5, 6, 6])
    np.testing.assert_array_equal(keep_names(labels, before, first_new=9), [4, 4, 9, 9, 10, 10])
    none = np.full(6, -1)
    np.testing.assert_array_equal(keep_names(labels, none), labels)
    np.testing.assert_array_equal(keep_names(none, before), none)
