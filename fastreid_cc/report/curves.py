"""The chapter of curves: everything that a run recorded, drawn or, if it never changed, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from typing import NamedTuple

import numpy as np

from .charts import Legend, collect, legend, line_chart, size_chart
from .clusters import spread
from .rendering import Chapter, render
from .runs import Run, Series, identities
from .times import common_marks

MAX_ROWS = 200
LEFT_OUT = ("eta_seconds", "start/*", "transfer/*")  # a guess; in front of the curves and in text


class Group(NamedTuple):
    """Scalars that share a chart of one run, and have one each where runs are compared.

    Args:
        keys: names, perhaps with "*".
        factor: turns what was logged into `unit`.
        top: where the axis ends, by default above the highest value.
        is_main: shown at once.
        is_count: the axis has whole numbers.
    """

    title: str
    text: str
    keys: tuple[str, ...]
    unit: str = ""
    factor: float = 1
    top: float | None = None
    is_main: bool = True
    is_count: bool = False


GROUPS = (
    Group(
        "Retrieval",
        "On the test set; at step 0 of the weights at the start, where measured.",
        ("mAP", "Rank-1", "Rank-5", "Rank-10", "mINP"),
        "%",
        top=100,
    ),
    Group("Losses", "Of different losses, only the shapes compare.", ("total_loss", "*loss*")),
    Group(
        "Clusters",
        "At each labelling. Dotted: identities there really are, where known.",
        ("cc/num_clusters",),
        is_count=True,
    ),
    Group("Cluster sizes over time", "Images in a cluster.", ("cc/size_*",), is_count=True),
    Group("Outliers", "Images in no cluster.", ("cc/outlier_share",), "%", 100),
    Group(
        "Stability of labels",
        "How alike each labelling is to the one before (ARI): 1 is the same, 0 unrelated.",
        ("cc/stability",),
        top=1.05,
    ),
    Group(
        "Found by their mirror image",
        "Before and after: how surely an image is found among all by its mirror image; 1: always.",
        ("mirror_rank",),
        top=1.05,
    ),
    Group(
        "Cameras per cluster",
        "Near 1, clusters follow the camera rather than the identity.",
        ("cc/cameras_per_cluster",),
    ),
    Group(
        "Agreement with the identities",
        "Logged, never used; 1 is perfect. ARI counts outliers as clusters of their own, NMI and"
        " purity leave them out.",
        ("cc/ari", "cc/nmi", "cc/purity"),
        top=1.05,
    ),
    Group("Outliers", "Images in no cluster.", ("cc/num_outliers",), "images", is_main=False),
    Group(
        "Metric",
        "Mean of mAP and Rank-1: by it fastreid keeps its best model.",
        ("metric",),
        is_main=False,
    ),
    Group(
        "Radius eps",
        "Changes by the automatic rule or after a collapse.",
        ("cc/eps",),
        is_main=False,
    ),
    Group("Learning rate", "Of the first group of weights.", ("lr",), is_main=False),
    Group(
        "Seconds per step",
        "A step, and of it the wait for images.",
        ("time", "data_time"),
        "s",
        is_main=False,
    ),
    Group("Seconds per labelling", "By its parts.", ("cc/seconds_*",), "s", is_main=False),
)


class CurveCard(NamedTuple):
    """A chart; `head` and `rows` are the figures below it, of `num_steps` the ones shown."""

    title: str
    text: str
    drawing: str
    unit: str = ""
    legend: Sequence[Legend] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    num_steps: int = 0
    is_main: bool = True


class Panel(NamedTuple):
    """What one chart shows: `names` as its legend says them, (number of the line, series) each."""

    group: Group
    title: str
    names: list[str]
    lines: list[tuple[int, Series]]


def curves(runs: Sequence[Run]) -> Chapter:
    """A chart with its figures for every scalar that changed; the others as a table."""
    cards: list[CurveCard] = []
    fixed: list[tuple[str, str, str]] = []
    prefix = f"{runs[0].name}: " if len(runs) == 1 else ""
    for panel in _panels(runs):
        moving = [line for line in panel.lines if _changes(line[1][1])]
        if moving:
            cards.append(_card(runs, panel._replace(lines=moving), f"chart-{len(cards)}"))
        for index, (_, values) in panel.lines:
            if not _changes(values):
                name = panel.names[index].removeprefix(prefix)
                often = "once" if len(values) == 1 else f"{len(values)} times the same"
                fixed.append((name, f"{values[-1]:.6g}", often))
    sizes = [
        (i, np.bincount(images.labels[images.labels >= 0]))
        for i, images in enumerate(run.features.clustered for run in runs)
        if images is not None and (np.bincount(images.labels[images.labels >= 0]) > 1).any()
    ]
    if sizes:
        drawing = size_chart(sizes, "chart-sizes")
        cards.append(CurveCard("Cluster sizes", "At the last labelling.", drawing))
    shown = legend([run.name for run in runs]) if len(runs) > 1 else []
    sheets = [[card for card in cards if card.is_main is main] for main in (True, False)]
    body = render("curves.html", sheets=sheets, legend=shown, fixed=fixed)
    return Chapter("curves", "Curves", body)


def _changes(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return len(known) > 1 and bool(np.ptp(known) > 0)


def _panels(runs: Sequence[Run]) -> Iterator[Panel]:
    """The charts in order: those of `GROUPS`, then one for every other scalar."""
    keys = list(dict.fromkeys(run.plain_name(key) for run in runs for key in run.scalars))
    keys = [key for key in keys if not any(fnmatch(key, left) for left in LEFT_OUT)]
    groups = [*GROUPS, *(Group(key, "As it was recorded.", (key,), is_main=False) for key in keys)]
    for group in groups:
        mine = [key for wanted in group.keys for key in keys if fnmatch(key, wanted)]
        mine = list(dict.fromkeys(mine))
        keys = [key for key in keys if key not in mine]
        found = [collect(runs, key, scale=group.factor) for key in mine]
        if len(runs) > 1:
            for key, lines in zip(mine, found, strict=True):
                title = f"{group.title}: {key}" if len(mine) > 1 else group.title
                yield Panel(group, title, [f"{run.name}: {key}" for run in runs], lines)
        elif mine:
            names = [f"{runs[0].name}: {key}" for key in mine]
            lines = [(i, line) for i, ((_, line),) in enumerate(found)]
            yield Panel(group, group.title, names, lines)


def _card(runs: Sequence[Run], panel: Panel, name: str) -> CurveCard:
    group, indices = panel.group, [index for index, _ in panel.lines]
    level = None
    if "cc/num_clusters" in group.keys:
        levels = {identities(run) for run in runs} - {None}
        level = levels.pop() if len(levels) == 1 else None
    drawing = line_chart(
        panel.lines,
        name,
        last=_last(runs),
        top=group.top,
        level=level,
        marks=common_marks(runs),
        is_count=group.is_count,
    )
    head = ["step", *(panel.names[index] for index in indices)]
    rows, num_steps = _logged([series for _, series in panel.lines])
    shared = group.keys[0].removesuffix("*") if group.keys[0].endswith("_*") else "cc/"
    short = [name.removeprefix(f"{runs[0].name}: ").removeprefix(shared) for name in panel.names]
    several = len(indices) > 1 and len(runs) == 1
    shown = [line for i, line in enumerate(legend(short)) if i in indices] if several else []
    return CurveCard(
        panel.title, group.text, drawing, group.unit, shown, head, rows, num_steps, group.is_main
    )


def _last(runs: Sequence[Run]) -> int:
    return max(int(steps[-1]) for run in runs for steps, _ in run.scalars.values())


def _logged(found: list[Series]) -> tuple[list[list[object]], int]:
    """The values as they were logged, at most 200 rows, and how many rows there would be."""
    steps = np.unique(np.concatenate([steps for steps, _ in found]))
    known = [dict(zip(*series, strict=True)) for series in found]
    rows: list[list[object]] = [
        [step, *(f"{k[step]:.6g}" if step in k else "" for k in known)]
        for step in spread(steps, MAX_ROWS)
    ]
    return rows, len(steps)
