"""The parts of the page about figures: tiles, summary, cameras, time and set-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .clusters import ClusterStats, linked_cameras
from .ranking import Ranking
from .rendering import Chapter, render
from .runs import Run, identities
from .times import clock, spent
from .verdict import has_cameras
from .versions import installed

MAX_CAMERAS = 24
WHEN = ("command", "started", "resumed", "ended")


class Tile(NamedTuple):
    """A figure of the head of a page about one run."""

    title: str
    value: float | None
    text: str
    unit: str = ""
    digits: int = 1


class Column(NamedTuple):
    """A figure of several runs; `values` has one entry per run."""

    title: str
    values: list[float | None]
    digits: int
    is_score: bool = False


def tiles(run: Run) -> list[Tile]:
    """The figures of one run, those it has."""
    known, start = identities(run), run.before()
    found = [
        Tile(
            "mAP",
            run.last(run.measured("mAP")),
            f"before training {start:,.1f} %" if start is not None else "on the test set",
            "%",
        ),
        Tile("Rank-1", run.last(run.measured("Rank-1")), "first answer right", "%"),
        Tile(
            "Clusters",
            run.last("cc/num_clusters"),
            f"for {known} identities" if known else "at the last labelling",
            digits=0,
        ),
        Tile("Outliers", run.last("cc/outlier_share", 100), "images in no cluster", "%"),
        Tile("ARI", run.last("cc/ari"), "labels against truth", digits=2),
    ]
    if has_cameras(run):
        found.append(Tile("Cameras", run.last("cc/cameras_per_cluster"), "per cluster"))
    return [tile for tile in found if tile.value is not None and np.isfinite(tile.value)]


def summary(runs: Sequence[Run]) -> list[Column]:
    """The figures of several runs, those that one of them has."""

    def last(key: str, factor: float = 1) -> list[float | None]:
        return [run.last(run.measured(key), factor) for run in runs]

    steps = [run.scalars.get("time") for run in runs]
    columns = [
        Column("mAP before", [run.before() for run in runs], 1),
        Column("mAP", last("mAP"), 1, is_score=True),
        *(Column(name, last(name), 1) for name in ("Rank-1", "Rank-5", "Rank-10", "mINP")),
        Column("clusters", last("cc/num_clusters"), 0),
        Column("outliers %", last("cc/outlier_share", 100), 1),
        Column("ARI", last("cc/ari"), 2),
        Column("loss", last("total_loss"), 3),
        Column("s per step", [None if s is None else float(np.median(s[1])) for s in steps], 2),
    ]
    return [column for column in columns if any(value is not None for value in column.values)]


def camera_tables(
    runs: Sequence[Run], stats: Sequence[ClusterStats | None], rankings: Sequence[Sequence[Ranking]]
) -> Chapter | None:
    """Camera against camera: what the network retrieves and what the clusters join.

    A card is (title, text, corner, cameras i64 [C], shares f64 [C, C]); nan where there is nothing
    to say.
    """
    cards = []
    for run, known, ranked in zip(runs, stats, rankings, strict=True):
        of = f"{run.name}: " if len(runs) > 1 else ""
        for test, ranking in zip(run.features.tests, ranked, strict=True):
            title = f"{of}mAP from camera to camera, {test.name}"
            text = "Queries of the row's camera, answers of the column's. In percent."
            corner = "query \\ gallery"
            if len(ranking.cameras):
                cards.append((title, text, corner, ranking.cameras, ranking.by_camera))
        images = run.features.clustered
        if images is not None and known is not None and len(np.unique(images.cameras)) > 1:
            text = (
                "Of the clusters with an image of the row's camera, the share that also holds one"
                " of the column's. In percent. A pale row is a camera that stays by itself."
            )
            title = f"{of}cameras that clusters join"
            cards.append((title, text, "of \\ also", *linked_cameras(images)))
    if not cards:
        return None
    limits = [_range(shares) for *_, shares in cards]
    body = render("cameras.html", cards=cards, limits=limits, limit=MAX_CAMERAS)
    return Chapter("cameras", "Camera by camera", body)


def _range(shares: np.ndarray) -> tuple[float, float]:
    """Lowest share and width of the range of colours, of at least a fifth."""
    known = shares[np.isfinite(shares)]
    if not len(known):
        return 0, 1
    width = max(float(np.ptp(known)), 0.2)
    return max(0.0, float(known.max()) - width), width


def setup(runs: Sequence[Run]) -> Chapter:
    """Command, times and versions, keys that differ between runs, and every key."""
    here = installed()
    versions = [
        [name, *(run.versions.get(name, "not recorded") for run in runs), here.get(name, "")]
        for name in dict.fromkeys([key for run in runs for key in run.versions] + list(here))
        if name not in WHEN
    ]
    when = [[key, *(run.versions.get(key, "not recorded") for run in runs)] for key in WHEN]
    keys = sorted({key for run in runs for key in run.config})
    settings = [[key, *(_text(run.config.get(key, "–")) for run in runs)] for key in keys]
    body = render(
        "setup.html",
        names=[run.name for run in runs],
        when=[row for row in when if set(row[1:]) != {"not recorded"}],
        times=_times(runs),
        made_with=["", *(f"{run.name}, trained with" for run in runs), "this page made with"],
        versions=versions,
        different=[row for row in settings if len(set(row[1:])) > 1],
        settings=[
            (run.name, [(k, _text(v)) for k, v in sorted(run.config.items())]) for run in runs
        ],
    )
    return Chapter("setup", "Time, command and set-up", body)


def _times(runs: Sequence[Run]) -> list[list[str]]:
    """Rows of (part, time of each run), "20 times, 48 s"."""
    found = [{part.part: part for part in spent(run)} for run in runs]
    rows = []
    for part in dict.fromkeys(name for parts in found for name in parts):
        row = [part]
        for parts in found:
            known = parts.get(part)
            times = [f"{known.times:,} times"] if known and known.times else []
            row.append(", ".join([*times, clock(known.seconds)]) if known else "–")
        rows.append(row)
    return rows


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
