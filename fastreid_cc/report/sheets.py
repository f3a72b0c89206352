"""The chapters of the page that show images: retrieval, clusters, outliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from .clusters import ClusterStats, choose, spread
from .pictures import Album, Shot
from .ranking import Ranking
from .rendering import Chapter, render
from .runs import Clustered, Run, TestSet

PER_CLUSTER = 12
DIFFERENT = 4  # queries on which runs differ most

#: A run's answers on one test set.
Answered = tuple[Run, TestSet, Ranking]


class Query(NamedTuple):
    """A query and, for every run, (the run's name, average precision in 0..1, its answers)."""

    shot: Shot
    answers: list[tuple[str, float, list[Shot]]]


class QuerySet(NamedTuple):
    """The queries shown of one test set.

    Args:
        name: of the test set.
        measured: (run, its ranking, the mAP it logged or None).
        typical: evenly from the worst to the best.
        disputed: those on which the runs differ most.
    """

    name: str
    measured: list[tuple[str, Ranking, float | None]]
    typical: list[Query]
    disputed: list[Query]


def retrieval(
    runs: Sequence[Run], rankings: Sequence[Sequence[Ranking]], album: Album, *, queries: int
) -> Chapter | None:
    """Queries with their nearest gallery images, every run's answers one below the other."""
    sets = []
    for name in dict.fromkeys(test.name for run in runs for test in run.features.tests):
        answered = _of_one_set(runs, rankings, name)
        precision = np.stack([ranking.precision for _, _, ranking in answered])
        valid = np.flatnonzero(~np.isnan(precision).any(axis=0))
        if not len(valid):
            continue
        typical = spread(valid[np.argsort(precision[0, valid], kind="stable")], queries)
        gap = np.ptp(precision, axis=0)[valid]
        disputed = valid[np.argsort(-gap, kind="stable")]
        disputed = disputed[~np.isin(disputed, typical)][: DIFFERENT if len(answered) > 1 else 0]
        measured = [(run.name, ranking, _logged(run, name)) for run, _, ranking in answered]
        shown = ([_query(answered, row, album) for row in rows] for rows in (typical, disputed))
        sets.append(QuerySet(name, measured, *shown))
    return Chapter("retrieval", "Retrieval", render("retrieval.html", sets=sets)) if sets else None


def _of_one_set(
    runs: Sequence[Run], rankings: Sequence[Sequence[Ranking]], name: str
) -> list[Answered]:
    """The runs measured on the same images under one name, as the first of them."""
    found: list[Answered] = []
    for run, ranked in zip(runs, rankings, strict=True):
        for test, ranking in zip(run.features.tests, ranked, strict=True):
            if test.name == name and (not found or test.paths == found[0][1].paths):
                found.append((run, test, ranking))
    return found


def _logged(run: Run, name: str) -> float | None:
    """The mAP that a run logged for a test set."""
    return run.last(f"{name}/mAP" if f"{name}/mAP" in run.scalars else "mAP")


def _query(answered: Sequence[Answered], row: int, album: Album) -> Query:
    test = answered[0][1]
    asked = album.shot(test.paths[row], f"camera {test.cameras[row]}", "query", "query")
    answers = []
    for run, own, ranking in answered:
        shots = []
        for rank, right, near in zip(
            ranking.top[row], ranking.right[row], ranking.similarity[row], strict=True
        ):
            if rank >= 0:
                mark, kind, whose = ("✓", "right", "same") if right else ("✗", "wrong", "another")
                label = f"{whose} identity, camera {own.cameras[rank]}"
                shots.append(album.shot(own.paths[rank], f"{mark} {near:.2f}", kind, label))
        answers.append((run.name, float(ranking.precision[row]), shots))
    return Query(asked, answers)


def clusters(images: Clustered, stats: ClusterStats, album: Album, *, count: int) -> Markup:
    """Contact sheets of one run's clusters, `count` on each sheet."""
    sheets = [
        (heading, rule, [(c, _members(images, stats, c, album)) for c in map(int, chosen)])
        for heading, rule, chosen in choose(stats, count)
    ]
    return render("clusters.html", sheets=sheets, stats=stats, has_truth=images.truth is not None)


def _members(images: Clustered, stats: ClusterStats, cluster: int, album: Album) -> list[Shot]:
    """At most 12 images of a cluster, from the most to the least typical."""
    members = np.flatnonzero(images.labels == cluster)
    order = members[np.argsort(-stats.own[members], kind="stable")]
    shots = []
    for row in map(int, spread(order, PER_CLUSTER)):
        is_odd = stats.same_identity(images, row, cluster) is False
        sign, kind, more = ("≠ ", "odd", ", another identity") if is_odd else ("", "", "")
        camera = images.cameras[row]
        label = f"camera {camera}, similarity {stats.own[row]:.2f}{more}"
        shots.append(album.shot(images.paths[row], f"{sign}c{camera}", kind, label))
    return shots


def outliers(images: Clustered, stats: ClusterStats, album: Album, *, count: int) -> Markup:
    """Outliers of one run, each beside the most typical image of the cluster it is nearest to."""
    lone = np.flatnonzero(images.labels < 0)
    order = lone[np.argsort(-stats.other[lone], kind="stable")]
    pairs = []
    for row in map(int, spread(order, count)):
        cluster = int(stats.nearest[row])
        members = np.flatnonzero(images.labels == cluster)
        core = int(members[np.argmax(stats.own[members])])
        mark = {True: " ✓", False: " ✗", None: ""}[stats.same_identity(images, row, cluster)]
        near, label = f"{stats.other[row]:.2f}{mark}", f"most typical of cluster {cluster}"
        outlier = album.shot(images.paths[row], f"c{images.cameras[row]}", "query", "outlier")
        pairs.append((outlier, album.shot(images.paths[core], near, "core", label)))
    has_truth = images.truth is not None
    return render("outliers.html", pairs=pairs, num_outliers=len(lone), has_truth=has_truth)
