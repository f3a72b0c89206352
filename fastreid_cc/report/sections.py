"""The chapters of the page about figures: summary, curves, cameras, set-up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .charts import bar_chart, collect, line_chart, size_chart, style
from .clusters import ClusterStats, linked_cameras
from .markup import details, esc, note, number, section, table
from .ranking import Ranking
from .runs import Run
from .versions import installed

#: (scalar, title, unit of the figures, factor, what it tells).
CURVES: tuple[tuple[str, str, str, float, str], ...] = (
    ("mAP", "mAP", "%", 1, "Retrieval on the test set, all ranks."),
    ("Rank-1", "Rank-1", "%", 1, "Queries whose first answer is right."),
    ("total_loss", "Loss", "", 1, "Of different losses, only the shape can be compared."),
    (
        "cc/num_clusters",
        "Clusters",
        "",
        1,
        "At each labelling. Dotted: identities there really are, where known.",
    ),
    ("cc/outlier_share", "Outliers", "%", 100, "Images in no cluster."),
    (
        "cc/ari",
        "Adjusted Rand index",
        "",
        1,
        "Labels against true identities, outliers as clusters"
        " of their own; 1 is perfect. Logged, never used.",
    ),
    (
        "cc/cameras_per_cluster",
        "Cameras per cluster",
        "",
        1,
        "Near 1, clusters follow the camera rather than the identity.",
    ),
    ("cc/eps", "Radius eps", "", 1, "Changes only by the automatic rule or after a collapse."),
)
MAX_ROWS = 200
MAX_CAMERAS = 24


def identities(run: Run) -> int | None:
    """True identities among the training images, where all of them are known."""
    images = run.evidence.clustered
    if images is None or images.truth is None or (images.truth < 0).any():
        return None
    return len(np.unique(images.truth))


def chips(runs: Sequence[Run]) -> str:
    """The legend: each run's name beside its colour and line."""
    dashes = ("", "7 3", "2 3", "7 3 2 3")
    items = [
        f'<li><svg viewBox="0 0 28 8" aria-hidden="true"><line x1="0" y1="4" x2="28" y2="4" '
        f'stroke="{style(i)[0]}" stroke-width="4" stroke-dasharray="{dashes[i % 4]}"/></svg>'
        f"{esc(run.name)}</li>"
        for i, run in enumerate(runs)
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def headline(run: Run) -> str:
    """The figures of one run as tiles."""
    known, start = identities(run), run.before()
    tiles = [
        (
            "mAP",
            number(run.last(run.measured("mAP"))),
            "%",
            f"before training {number(start)} %" if start is not None else "on the test set",
        ),
        ("Rank-1", number(run.last(run.measured("Rank-1"))), "%", "first answer right"),
        (
            "Clusters",
            number(run.last("cc/num_clusters"), 0),
            "",
            f"for {known} identities" if known else "at the last labelling",
        ),
        ("Outliers", number(_percent(run.last("cc/outlier_share"))), "%", "images in no cluster"),
        ("ARI", number(run.last("cc/ari"), 2), "", "labels against truth"),
        ("Cameras", number(run.last("cc/cameras_per_cluster")), "", "per cluster"),
    ]
    cards = [
        f'<div class="tile"><h3>{esc(title)}</h3><p><b>{esc(value)}</b> {unit}</p>'
        f"<small>{esc(text)}</small></div>"
        for title, value, unit, text in tiles
        if value != "–"
    ]
    return f'<div class="tiles">{"".join(cards)}</div>'


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def summary(runs: Sequence[Run]) -> str:
    """The figures of several runs as a table, the best mAP in bold."""
    columns: tuple[tuple[str, str, int, float], ...] = (
        ("before", "mAP before", 1, 1),
        ("mAP", "mAP", 1, 1),
        ("Rank-1", "Rank-1", 1, 1),
        ("Rank-5", "Rank-5", 1, 1),
        ("Rank-10", "Rank-10", 1, 1),
        ("mINP", "mINP", 1, 1),
        ("cc/num_clusters", "clusters", 0, 1),
        ("cc/outlier_share", "outliers %", 1, 100),
        ("cc/ari", "ARI", 2, 1),
        ("total_loss", "loss", 3, 1),
        ("time", "s per step", 2, 1),
    )
    rows: list[list[Any]] = [[run.name] for run in runs]
    head = ["run"]
    for key, title, digits, factor in columns:
        values = [_value(run, key, factor) for run in runs]
        if all(value is None for value in values):
            continue
        head.append(title)
        best = max((v for v in values if v is not None), default=None) if key == "mAP" else None
        for row, value in zip(rows, values, strict=True):
            is_best = best is not None and value == best
            row.append((number(value, digits), 'class="best"' if is_best else ""))
    return table(head, rows, kind="figures")


def _value(run: Run, key: str, factor: float) -> float | None:
    if key == "before":
        return run.before()
    if key == "time":
        series = run.scalars.get(key)
        return None if series is None else float(np.median(series[1]))
    found = run.last(run.measured(key))
    return None if found is None else found * factor


def curves(runs: Sequence[Run]) -> str:
    """A chart with its figures for every scalar that a run has."""
    cards: list[str] = []
    for key, title, unit, factor, text in CURVES:
        found = collect(runs, key, scale=factor)
        if not found or (key == "cc/eps" and all(np.ptp(s[1]) == 0 for _, s in found)):
            continue
        name = f"chart-{len(cards)}"
        if all(len(steps) == 1 for _, (steps, _) in found):
            bars = [(index, float(values[0])) for index, (_, values) in found]
            drawn = bar_chart(bars, name, percent=unit == "%")
            text += " Measured once."
        else:
            levels = {identities(run) for run in runs} - {None}
            level = levels.pop() if key == "cc/num_clusters" and len(levels) == 1 else None
            drawn = line_chart(found, name, level=level, percent=unit == "%")
        figures = details("Figures", _figures(runs, found, key))
        cards.append(_card(title, unit, drawn, text, figures))
    sizes = [
        (i, np.bincount(images.labels[images.labels >= 0]))
        for i, images in enumerate(run.evidence.clustered for run in runs)
        if images is not None and (images.labels >= 0).any()
    ]
    if sizes:
        text = "At the last labelling."
        cards.append(_card("Cluster sizes", "", size_chart(sizes, "chart-sizes"), text, ""))
    legend = chips(runs) if len(runs) > 1 else ""
    return section("curves", "Curves", legend, f'<div class="charts">{"".join(cards)}</div>')


def _card(title: str, unit: str, drawn: str, text: str, more: str) -> str:
    heading = f"{esc(title)} <small>{esc(unit)}</small>" if unit else esc(title)
    text = note(text)
    return f'<article class="card"><h3>{heading}</h3>{drawn}{text}{more}</article>'


def _figures(runs: Sequence[Run], found: list[tuple[int, Any]], key: str) -> str:
    """The values as they were logged, at most 200 rows, evenly taken when there are more."""
    steps = np.unique(np.concatenate([series[0] for _, series in found]))
    shown = steps
    if len(steps) > MAX_ROWS:
        shown = steps[np.linspace(0, len(steps) - 1, MAX_ROWS).round().astype(int)]
    known = [dict(zip(*map(list, series), strict=True)) for _, series in found]
    rows = [[int(step), *(f"{k[step]:.6g}" if step in k else "" for k in known)] for step in shown]
    head = ["step", *(f"{runs[index].name}: {key}" for index, _ in found)]
    few = note(f"{len(shown)} of {len(steps):,} rows.") if len(shown) < len(steps) else ""
    return few + table(head, rows, kind="figures")


def heat(cameras: np.ndarray, values: np.ndarray, corner: str, *, digits: int = 0) -> str:
    """A matrix over cameras in percent, darker where higher; at most 24 cameras."""
    shown = cameras[:MAX_CAMERAS]
    rows = []
    for i, camera in enumerate(shown):
        cells = []
        for value in values[i, : len(shown)]:
            known = math.isfinite(value)
            level = f'style="--level:{max(0.0, min(1.0, value)):.3f}"' if known else ""
            cells.append((number(100 * value, digits) if known else "–", level))
        rows.append([f"camera {camera}", *cells])
    more = ""
    if len(shown) < len(cameras):
        more = note(f"The first {len(shown)} of {len(cameras)} cameras.")
    return table([corner, *(str(camera) for camera in shown)], rows, kind="heat") + more


def camera_tables(
    runs: Sequence[Run], facts: Sequence[ClusterStats | None], rankings: Sequence[Sequence[Ranking]]
) -> str:
    """Camera against camera: what the network retrieves and what the clusters join."""
    cards = []
    for run, known, ranked in zip(runs, facts, rankings, strict=True):
        of = f"{run.name}: " if len(runs) > 1 else ""
        for test, ranking in zip(run.evidence.tests, ranked, strict=True):
            title = f"{of}mAP from camera to camera, {test.name}"
            text = "Queries of the row's camera, answers of the column's. In percent."
            matrix = heat(ranking.cameras, ranking.by_camera, "query \\ gallery")
            cards.append(_card(title, "", matrix, text, ""))
        images = run.evidence.clustered
        if images is not None and known is not None and len(np.unique(images.cameras)) > 1:
            cameras, share = linked_cameras(images)
            text = (
                "Of the clusters with an image of the row's camera, the share that also holds one"
                " of the column's. In percent. A pale row is a camera that stays by itself."
            )
            title = f"{of}cameras that clusters join"
            cards.append(_card(title, "", heat(cameras, share, "of \\ also"), text, ""))
    if not cards:
        return ""
    return section(
        "cameras",
        "Camera by camera",
        note("Cameras are numbered as the data set does; training images from 0, in sorted order."),
        f'<div class="charts wide">{"".join(cards)}</div>',
    )


def setup(runs: Sequence[Run]) -> str:
    """Versions, keys that differ between runs, and every key."""
    here = installed()
    names = list(dict.fromkeys([key for run in runs for key in run.versions] + list(here)))
    head = ["", *(f"{run.name}, trained with" for run in runs), "this page made with"]
    rows = [
        [name, *(run.versions.get(name, "not recorded") for run in runs), here.get(name, "")]
        for name in names
    ]
    parts = [table(head, rows)]
    keys = sorted({key for run in runs for key in run.config})
    if len(runs) > 1:
        differ = [key for key in keys if len({_text(run.config.get(key)) for run in runs}) > 1]
        lines = [[key, *(_text(run.config.get(key, "–")) for run in runs)] for key in differ]
        parts.append(f"<h3>Keys that differ</h3>{table(['key', *(r.name for r in runs)], lines)}")
    for run in runs:
        lines = [[key, _text(run.config[key])] for key in sorted(run.config)]
        if lines:
            summary_text = f"All {len(lines)} keys of {run.name} (config.yaml)"
            parts.append(details(summary_text, table(["key", "value"], lines)))
    return section("setup", "Set-up and versions", *parts)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
