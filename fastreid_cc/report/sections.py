"""The parts of the page about figures: tiles, summary, curves, cameras, set-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .charts import bar_chart, collect, legend, line_chart, size_chart
from .clusters import ClusterStats, linked_cameras, spread
from .ranking import Ranking
from .rendering import Chapter, render
from .runs import Run, Series
from .versions import installed

MAX_ROWS = 200
MAX_CAMERAS = 24


class Curve(NamedTuple):
    """A scalar that gets a chart; `factor` turns what was logged into `unit`."""

    key: str
    title: str
    text: str
    unit: str = ""
    factor: float = 1


CURVES = (
    Curve("mAP", "mAP", "Retrieval on the test set, all ranks.", "%"),
    Curve("Rank-1", "Rank-1", "Queries whose first answer is right.", "%"),
    Curve("total_loss", "Loss", "Of different losses, only the shape can be compared."),
    Curve(
        "cc/num_clusters",
        "Clusters",
        "At each labelling. Dotted: identities there really are, where known.",
    ),
    Curve("cc/outlier_share", "Outliers", "Images in no cluster.", "%", 100),
    Curve(
        "cc/ari",
        "Adjusted Rand index",
        "Labels against true identities, outliers as clusters of their own; 1 is perfect. Logged,"
        " never used.",
    ),
    Curve(
        "cc/cameras_per_cluster",
        "Cameras per cluster",
        "Near 1, clusters follow the camera rather than the identity.",
    ),
    Curve("cc/eps", "Radius eps", "Changes only by the automatic rule or after a collapse."),
)


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


def identities(run: Run) -> int | None:
    """True identities among the training images, where all of them are known."""
    images = run.features.clustered
    if images is None or images.truth is None or (images.truth < 0).any():
        return None
    return len(np.unique(images.truth))


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
        Tile("Cameras", run.last("cc/cameras_per_cluster"), "per cluster"),
    ]
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


class CurveCard(NamedTuple):
    """A chart; `head` and `rows` are the figures below it, of `num_steps` the ones shown."""

    title: str
    text: str
    drawing: str
    unit: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    num_steps: int = 0


def curves(runs: Sequence[Run]) -> Chapter:
    """A chart with its figures for every scalar that a run has."""
    cards: list[CurveCard] = []
    for curve in CURVES:
        found = collect(runs, curve.key, scale=curve.factor)
        if not found or (curve.key == "cc/eps" and all(np.ptp(s[1]) == 0 for _, s in found)):
            continue
        name, text = f"chart-{len(cards)}", curve.text
        if all(len(steps) == 1 for _, (steps, _) in found):
            bars = [(index, float(values[0])) for index, (_, values) in found]
            drawing = bar_chart(bars, name, percent=curve.unit == "%")
            text += " Measured once."
        else:
            levels = {identities(run) for run in runs} - {None}
            level = levels.pop() if curve.key == "cc/num_clusters" and len(levels) == 1 else None
            drawing = line_chart(found, name, level=level, percent=curve.unit == "%")
        head = ["step", *(f"{runs[index].name}: {curve.key}" for index, _ in found)]
        rows, num_steps = _logged([series for _, series in found])
        cards.append(CurveCard(curve.title, text, drawing, curve.unit, head, rows, num_steps))
    sizes = [
        (i, np.bincount(images.labels[images.labels >= 0]))
        for i, images in enumerate(run.features.clustered for run in runs)
        if images is not None and (images.labels >= 0).any()
    ]
    if sizes:
        drawing = size_chart(sizes, "chart-sizes")
        cards.append(CurveCard("Cluster sizes", "At the last labelling.", drawing))
    return Chapter("curves", "Curves", render("curves.html", cards=cards, legend=legend(runs)))


def _logged(found: list[Series]) -> tuple[list[list[object]], int]:
    """The values as they were logged, at most 200 rows, and how many rows there would be."""
    steps = np.unique(np.concatenate([steps for steps, _ in found]))
    known = [dict(zip(*series, strict=True)) for series in found]
    rows: list[list[object]] = [
        [step, *(f"{k[step]:.6g}" if step in k else "" for k in known)]
        for step in spread(steps, MAX_ROWS)
    ]
    return rows, len(steps)


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
    body = render("cameras.html", cards=cards, limit=MAX_CAMERAS)
    return Chapter("cameras", "Camera by camera", body)


def setup(runs: Sequence[Run]) -> Chapter:
    """Versions, keys that differ between runs, and every key."""
    here = installed()
    versions = [
        [name, *(run.versions.get(name, "not recorded") for run in runs), here.get(name, "")]
        for name in dict.fromkeys([key for run in runs for key in run.versions] + list(here))
    ]
    keys = sorted({key for run in runs for key in run.config})
    settings = [[key, *(_text(run.config.get(key, "–")) for run in runs)] for key in keys]
    body = render(
        "setup.html",
        names=[run.name for run in runs],
        made_with=["", *(f"{run.name}, trained with" for run in runs), "this page made with"],
        versions=versions,
        different=[row for row in settings if len(set(row[1:])) > 1],
        settings=[
            (run.name, [(k, _text(v)) for k, v in sorted(run.config.items())]) for run in runs
        ],
    )
    return Chapter("setup", "Set-up and versions", body)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
