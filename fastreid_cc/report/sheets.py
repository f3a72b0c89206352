"""The chapters of the page that show images: retrieval, clusters, outliers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from ..files import folder_name
from .charts import Legend, legend, match_chart
from .clusters import ClusterStats, agreement, choose, halves, loosest, nearest_pairs, spread
from .pictures import Album, Shot
from .ranking import Ranking
from .rendering import Chapter, render
from .runs import Clustered, Run, TestSet

PER_CLUSTER = 12
PER_TWIN, PER_HALF = 4, 5
DIFFERENT = 4  # queries on which runs differ most
WORST = 4  # queries answered worst, of the ones shown

#: A run's answers on one test set.
Answered = tuple[Run, TestSet, Ranking]


class Query(NamedTuple):
    """A query and, for every run, (the run's name, average precision in 0..1, its answers)."""

    shot: Shot
    answers: list[tuple[str, float, list[Shot]]]


class QuerySet(NamedTuple):
    """What is shown of one test set.

    Args:
        name: of the test set.
        measured: (run, its ranking, the mAP it logged or None).
        chart: the cumulative matches, or "" without a query that has a match; `legend` its lines.
        sheets: (heading, queries).
    """

    name: str
    measured: list[tuple[str, Ranking, float | None]]
    chart: str
    legend: list[Legend]
    sheets: list[tuple[str, list[Query]]]


def retrieval(
    runs: Sequence[Run], rankings: Sequence[Sequence[Ranking]], album: Album, *, queries: int
) -> Chapter | None:
    """Cumulative matches, and queries with every run's answers one below the other."""
    sets: list[QuerySet] = []
    for name in dict.fromkeys(test.name for run in runs for test in run.features.tests):
        answered = _of_one_set(runs, rankings, name)
        precision = np.stack([ranking.precision for _, _, ranking in answered])
        valid = np.flatnonzero(~np.isnan(precision).any(axis=0))
        if not len(valid):
            continue
        order = valid[np.argsort(precision[0, valid], kind="stable")]
        several = len(answered) > 1
        of = f" of {answered[0][0].name}" if several else ""
        worst = order[: min(WORST, queries)]
        chosen = [(f"Worst queries{of}", worst)]
        rest = spread(order[len(worst) :], queries - len(worst))
        chosen.append((f"Others, evenly from worse to better{of}", rest))
        disputed = valid[np.argsort(-np.ptp(precision, axis=0)[valid], kind="stable")]
        disputed = disputed[~np.isin(disputed, [*worst, *rest])][: DIFFERENT if several else 0]
        chosen.append(("Where the runs differ most", disputed))
        sheets = [(text, [_query(answered, row, album) for row in rows]) for text, rows in chosen]
        places = [(runs.index(run), ranking.matches()) for run, _, ranking in answered]
        lines = [line for i, line in enumerate(legend([r.name for r in runs])) if i in dict(places)]
        measured = [(run.name, ranking, _logged(run, name)) for run, _, ranking in answered]
        chart = match_chart(places, f"chart-match-{len(sets)}")
        shown = [sheet for sheet in sheets if sheet[1] and album.shows]
        sets.append(QuerySet(name, measured, chart, lines if several else [], shown))
    if not sets:
        return None
    body = render("retrieval.html", sets=sets, has_images=album.shows)
    return Chapter("retrieval", "Retrieval", body)


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


class Member(NamedTuple):
    """A cluster on a sheet.

    Args:
        cluster: its number.
        cameras: in sorted order.
        folder: relative link to its images as files, "" where there is none.
        rows: its images, in one row or one of each half.
    """

    cluster: int
    cameras: list[int]
    folder: str
    rows: list[list[Shot]]


class Sheets:
    """Contact sheets of one run's clusters.

    Args:
        images, stats: the clusters.
        album: where their images come from.
        folders: the folder that the command `clusters` writes for this run.
        page: the folder that the page will lie in.
    """

    def __init__(
        self, images: Clustered, stats: ClusterStats, album: Album, folders: Path, page: Path
    ) -> None:
        self.images, self.stats, self.album = images, stats, album
        self.folders, self.page = folders, page
        self.has_cameras = len(np.unique(images.cameras)) > 1

    def render(self, count: int) -> tuple[Markup, list[int]]:
        """All sheets with `count` clusters or pairs on each, and the clusters that are doubtful."""
        loose, pairs = loosest(self.stats, count), nearest_pairs(self.stats, count)
        doubtful = list(dict.fromkeys([*map(int, loose), *(c for pair in pairs for c in pair)]))
        split = [self._split(int(c)) for c in loose]
        twice = [(self._member(a, PER_TWIN), self._member(b, PER_TWIN)) for a, b in pairs]
        others = [
            (heading, rule, [self._member(int(c), PER_CLUSTER) for c in chosen])
            for heading, rule, chosen in choose(self.stats, count, without=doubtful)
        ]
        body = render(
            "clusters.html",
            split=split,
            pairs=twice,
            others=others,
            stats=self.stats,
            has_truth=self.images.truth is not None,
            meets=agreement(self.images),
            has_images=self.album.shows,
            has_folders=any(m.folder for m, _ in split),
            has_cameras=self.has_cameras,
        )
        return body, doubtful

    def _split(self, cluster: int) -> tuple[Member, float]:
        """A cluster in two halves, and how alike they are."""
        members = self._ordered(cluster)
        side, alike = halves(self.images.features[members])
        rows = [members[~side], members[side]]
        return self._shown(cluster, [spread(row, PER_HALF) for row in rows if len(row)]), alike

    def _member(self, cluster: int, count: int) -> Member:
        return self._shown(cluster, [spread(self._ordered(cluster), count)])

    def _ordered(self, cluster: int) -> np.ndarray:
        """Rows of a cluster's images, from the most to the least typical."""
        members = np.flatnonzero(self.images.labels == cluster)
        return members[np.argsort(-self.stats.own[members], kind="stable")]

    def _shown(self, cluster: int, rows: list[np.ndarray]) -> Member:
        cameras = np.unique(self.images.cameras[self.images.labels == cluster]).tolist()
        folder = self.folders / folder_name(cluster, int(self.stats.sizes[cluster]))
        own = f"{int(np.argmax(self.images.labels == cluster)):06d}_*"
        is_there = any(folder.glob(own))  # not of another cluster, as after `--names-of`
        link = quote(os.path.relpath(folder, self.page)) + "/" if is_there else ""
        shots = [[self._shot(int(i), cluster) for i in row] for row in rows]
        return Member(cluster, cameras, link, shots if self.album.shows else [])

    def _shot(self, row: int, cluster: int) -> Shot:
        is_odd = self.stats.same_identity(self.images, row, cluster) is False
        sign, kind, more = ("≠", "odd", ", another identity") if is_odd else ("", "", "")
        camera = f" c{self.images.cameras[row]}" if self.has_cameras else ""
        label = f"camera {self.images.cameras[row]}, similarity {self.stats.own[row]:.2f}{more}"
        return self.album.shot(self.images.paths[row], f"{sign}{camera}".strip(), kind, label)


def outliers(images: Clustered, stats: ClusterStats, album: Album, *, count: int) -> Markup:
    """Outliers of one run, each beside the most typical image of the cluster it is nearest to."""
    lone = np.flatnonzero(images.labels < 0)
    order = lone[np.argsort(-stats.other[lone], kind="stable")]
    has_cameras, pairs = len(np.unique(images.cameras)) > 1, []
    for row in map(int, spread(order, count)):
        cluster = int(stats.nearest[row])
        members = np.flatnonzero(images.labels == cluster)
        core = int(members[np.argmax(stats.own[members])])
        mark = {True: " ✓", False: " ✗", None: ""}[stats.same_identity(images, row, cluster)]
        near, label = f"{stats.other[row]:.2f}{mark}", f"most typical of cluster {cluster}"
        camera = f"c{images.cameras[row]}" if has_cameras else ""
        outlier = album.shot(images.paths[row], camera, "query", "outlier")
        pairs.append((outlier, album.shot(images.paths[core], near, "core", label)))
    has_truth = images.truth is not None
    return render("outliers.html", pairs=pairs, num_outliers=len(lone), has_truth=has_truth)
