"""Joins clusters that the last epoch's average-K sets could not tell apart."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ...labels.ambiguity_sets import ambiguity_sets, cooccurrence, merge_proposals
from ...labels.numbering import number_by_first_image
from ...registry import REFINERS
from ...structures import Batch, MemoryLike
from .base import LabelsAt, Refiner

logger = logging.getLogger("fastreid.cc.refiners")


@REFINERS.register("merge_proposals")
class MergeProposals(Refiner):
    """While an epoch trains, counts which clusters share ambiguity sets; then joins them.

    Two clusters of the last labelling that stood together in more than `share` of the sets that
    held either are one in the next: the two new clusters that hold most of their images. Works in
    training only, with a memory whose classes are the clusters ("cluster", "hybrid").

    Args:
        set_size: average size of an ambiguity set.
        share: share of the common sets above which two clusters are joined.
        start_epoch: first epoch whose sets count, 0 = the first with pseudo-labels.

    Cost of a step: that of the loss's logits, and C² floats for C clusters.
    Source of the sets: Garcin et al., arXiv:2303.18118; this use is our proposal.

    >>> MergeProposals().refine(np.array([0, 0, 1, 1]), {})  # nothing was counted yet
    array([0, 0, 1, 1])
    """

    needs_training = True
    limits = {"set_size": "[1, inf)", "share": "[0, 1)", "start_epoch": "[0, inf)"}

    def __init__(self, *, set_size: float = 1.5, share: float = 0.5, start_epoch: int = 5) -> None:
        self.set_size, self.share, self.start_epoch = set_size, share, start_epoch
        self.previous: np.ndarray | None = None
        self.counts: Tensor | None = None

    def start(self, labels: np.ndarray) -> None:
        """Counts anew, for the clusters i64 [N] that are trained from here on."""
        self.previous, self.counts = labels, None

    @torch.no_grad()
    def observe(self, batch: Batch, memory: MemoryLike) -> None:
        """Counts the sets of a batch of all processes; the memory is as it was in the loss."""
        first, end = memory.num_sources, memory.num_sources + memory.num_clusters
        clustered = (batch.targets >= first) & (batch.targets < end)
        if memory.epoch < self.start_epoch or not clustered.any():
            return
        batch = batch.select(clustered)
        logits = memory.logits(F.normalize(batch.features.float()), batch)[:, first:end]
        counts = cooccurrence(ambiguity_sets(logits, self.set_size, batch.targets - first))
        self.counts = counts if self.counts is None else self.counts + counts

    def refine(
        self, labels: np.ndarray, at_offset: LabelsAt, cameras: np.ndarray | None = None
    ) -> np.ndarray:
        """See the base; `at_offset` and `cameras` are not used."""
        if self.previous is None or self.counts is None:
            return number_by_first_image(labels)
        pairs = merge_proposals(self.counts.cpu(), share=self.share).numpy()
        joined = join(labels, self.previous, pairs)
        logger.info(
            f"{len(pairs)} merges proposed by average-K sets: {labels.max(initial=-1) + 1} clusters"
            f" became {joined.max(initial=-1) + 1}"
        )
        return joined

    def state_dict(self) -> dict[str, Any]:
        """The clusters counted and the counts."""
        previous = None if self.previous is None else torch.from_numpy(self.previous)
        return {"previous": previous, "counts": None if self.counts is None else self.counts.cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        previous, self.counts = state["previous"], state["counts"]
        self.previous = None if previous is None else previous.numpy()


def join(labels: np.ndarray, previous: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Joins the new clusters that follow proposed pairs of old ones.

    The cluster that follows an old one holds more of its images than any other does, and they are
    more than half of its own that had a cluster.

    Args:
        labels: i64 [N], new clusters, -1 = outlier.
        previous: i64 [N], old clusters, -1 = outlier.
        pairs: i64 [M, 2], old clusters to join.
    Returns:
        i64 [N], clusters numbered by their first image.

    >>> join(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.array([[0, 1]]))
    array([0, 0, 0, 0])
    """
    both = (labels >= 0) & (previous >= 0)
    num_new, num_old = labels.max(initial=-1) + 1, previous.max(initial=-1) + 1
    if not both.any() or not len(pairs):
        return number_by_first_image(labels)
    table = coo_array(
        (np.ones(both.sum(), np.int64), (previous[both], labels[both])), shape=(num_old, num_new)
    ).tocsr()
    follower = np.asarray(table.argmax(axis=1)).ravel()
    common = np.asarray(table.max(axis=1).todense()).ravel()
    follower[2 * common <= np.asarray(table.sum(axis=0)).ravel()[follower]] = -1
    edges = follower[pairs]
    edges = edges[(edges >= 0).all(axis=1)]
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(num_new, num_new))
    component = connected_components(graph, directed=False)[1]
    return number_by_first_image(np.where(labels >= 0, component[labels], -1))
