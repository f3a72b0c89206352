"""Puts the page together: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .charts import legend
from .clusters import ClusterStats, describe
from .curves import curves
from .pictures import Album
from .ranking import rank
from .rendering import Chapter, render
from .runs import Run
from .sections import camera_tables, setup, summary, tiles
from .sheets import Sheets, outliers, retrieval
from .similar import similarities
from .times import clock, duration
from .verdict import judge


def build_page(
    runs: Sequence[Run],
    *,
    title: str = "",
    num_queries: int = 8,
    top: int = 10,
    num_clusters: int = 6,
    num_outliers: int = 24,
    show_images: bool = True,
    folder: Path | None = None,
) -> str:
    """The report of one run, or of several side by side.

    Args:
        runs: what to show; the first leads where an order is needed.
        title: heading; by default the runs' names.
        num_queries, top: retrieval sheets and answers in each.
        num_clusters: clusters per sheet.
        num_outliers: outliers shown per run.
        show_images: False leaves out every image and file name; the figures stay.
        folder: where the page will lie, for links; by default the first run's folder.
    Returns:
        HTML, at most about 16 MB of it images.

    Cost: that of ranking the galleries, and reading the images shown.
    """
    album = Album(shows=show_images)
    page_folder = (folder or runs[0].folder).absolute()
    stats = [_stats(run) for run in runs]
    rankings = [[rank(test, top=top) for test in run.features.tests] for run in runs]
    chapters: list[Chapter | None] = []
    for index, (run, known) in enumerate(zip(runs, stats, strict=True)):
        of = f": {run.name}" if len(runs) > 1 else ""
        images = run.features.clustered
        if images is None or known is None:
            continue
        sheets = Sheets(images, known, album, run.folder.absolute() / "clusters", page_folder)
        body, doubtful = sheets.render(num_clusters)
        chapters.append(Chapter(f"clusters-{index}", f"Clusters{of}", body))
        pairs = similarities(images, run.features.tests, known, doubtful, str(index))
        body = render("similarities.html", part=pairs, has_truth=images.truth is not None)
        chapters.append(Chapter(f"similarities-{index}", f"Similarities{of}", body))
    chapters += [curves(runs), retrieval(runs, rankings, album, queries=num_queries)]
    for index, (run, known) in enumerate(zip(runs, stats, strict=True)):
        images, of = run.features.clustered, f": {run.name}" if len(runs) > 1 else ""
        if images is not None and known is not None and album.shows:
            body = outliers(images, known, album, count=num_outliers)
            chapters.append(Chapter(f"outliers-{index}", f"Outliers{of}", body))
    chapters += [camera_tables(runs, stats, rankings), setup(runs)]
    page = render(
        "page.html",
        title=title or " · ".join(run.name for run in runs),
        facts=_facts(runs),
        runs=runs,
        tiles=tiles(runs[0]),
        summary=summary(runs),
        verdicts=[found for run in runs if (found := judge(run)) is not None],
        legend=legend([run.name for run in runs]),
        shows=album.shows,
        notes=_notes(runs, album),
        chapters=[chapter for chapter in chapters if chapter is not None],
    )
    # bytes of a file name that are no text are shown as escapes
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _stats(run: Run) -> ClusterStats | None:
    """Figures of a run's clusters; None without any, or where every image is a class of its own."""
    images = run.features.clustered
    if images is None or not (np.bincount(images.labels[images.labels >= 0]) > 1).any():
        return None
    return describe(images)


def _notes(runs: Sequence[Run], album: Album) -> list[str]:
    """What is missing, in sentences."""
    notes = [f"{run.name}: {text}" for run in runs for text in run.notes + run.features.notes]
    if album.unreadable:
        notes.append(f"{album.unreadable} image file(s) could not be read.")
    if album.refused:
        notes.append(f"{album.refused} image(s) are left out, to keep the page small.")
    return notes


def _facts(runs: Sequence[Run]) -> list[str]:
    """Data, network and length, where the runs agree."""
    facts = []
    for label, key in (("trained on", "DATASETS.NAMES"), ("tested on", "DATASETS.TESTS")):
        if label == "tested on" and not any(run.measured("mAP") in run.scalars for run in runs):
            continue
        found = {", ".join(run.names(key)) for run in runs}
        if len(found) == 1 and (text := found.pop()):
            facts.append(f"{label} {text}")
    images = {len(r.features.clustered.paths) for r in runs if r.features.clustered is not None}
    if len(images) == 1:
        facts.append(f"{images.pop():,} training images")
    steps = {int(r.scalars["total_loss"][0][-1]) + 1 for r in runs if "total_loss" in r.scalars}
    if len(steps) == 1:
        facts.append(f"{steps.pop():,} steps")
    if len(runs) == 1:
        facts += [runs[0].versions["started"]] if "started" in runs[0].versions else []
        seconds = duration(runs[0])
        facts += [clock(seconds)] if seconds is not None else []
    return facts
