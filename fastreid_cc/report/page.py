"""Puts the page together: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from .clusters import ClusterStats, describe
from .markup import esc, note
from .pictures import Album
from .ranking import rank
from .runs import Run
from .sections import camera_tables, chips, curves, headline, setup, summary
from .sheets import clusters, outliers, retrieval
from .style import CSS

#: No script runs and nothing is fetched, whatever a file name holds.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"


def build_page(
    runs: Sequence[Run],
    *,
    title: str = "",
    num_queries: int = 8,
    top: int = 10,
    num_clusters: int = 6,
    num_outliers: int = 24,
) -> str:
    """The report of one run, or of several side by side.

    Args:
        runs: what to show; the first leads where an order is needed.
        title: heading; by default the runs' names.
        num_queries, top: retrieval sheets and answers in each.
        num_clusters: clusters per sheet.
        num_outliers: outliers shown per run.
    Returns:
        HTML, at most about 16 MB of it images.

    Cost: that of ranking the galleries, and reading the images shown.
    """
    album = Album()
    facts = [_facts(run) for run in runs]
    rankings = [[rank(test, top=top) for test in run.evidence.tests] for run in runs]
    body = [retrieval(runs, rankings, album, queries=num_queries)]
    for index, (run, known) in enumerate(zip(runs, facts, strict=True)):
        if known is not None:
            of = f": {run.name}" if len(runs) > 1 else ""
            body.append(
                clusters(
                    run,
                    known,
                    album,
                    count=num_clusters,
                    anchor=f"clusters-{index}",
                    title=f"Clusters{of}",
                )
            )
            body.append(
                outliers(
                    run,
                    known,
                    album,
                    count=num_outliers,
                    anchor=f"outliers-{index}",
                    title=f"Outliers{of}",
                )
            )
    body = [curves(runs), *body, camera_tables(runs, facts, rankings), setup(runs)]
    head = title or " · ".join(run.name for run in runs)
    return _document(head, runs, [part for part in body if part], album)


def _facts(run: Run) -> ClusterStats | None:
    images = run.evidence.clustered
    return None if images is None or not (images.labels >= 0).any() else describe(images)


def _document(title: str, runs: Sequence[Run], body: list[str], album: Album) -> str:
    several = len(runs) > 1
    top = chips(runs) + summary(runs) if several else headline(runs[0])
    notes = [f"{run.name}: {text}" for run in runs for text in run.notes + run.evidence.notes]
    if album.unreadable:
        notes.append(f"{album.unreadable} image file(s) could not be read.")
    if album.refused:
        notes.append(f"{album.refused} image(s) are left out, to keep the page small.")
    kind = f"Comparison of {len(runs)} runs" if several else "Report of a run"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{esc(title)}</title><style>{CSS}</style></head>\n'
        f'<body><header><p class="kind">{kind}</p><h1>{esc(title)}</h1>{_subtitle(runs)}'
        f"{top}{''.join(map(note, notes))}{_contents(body)}</header>\n<main>"
        + "\n".join(body)
        + "</main>\n<footer><p>Made by fastreid_cc. The page holds images of the data set: pass it"
        " on as you would them.</p></footer></body></html>\n"
    )


def _contents(body: list[str]) -> str:
    """Links to the chapters."""
    links = []
    for part in body:
        anchor = part.split('id="', 1)[1].split('"', 1)[0]
        heading = part.split("<h2>", 1)[1].split("</h2>", 1)[0]
        links.append(f'<a href="#{anchor}">{heading}</a>')
    return f'<nav aria-label="Contents">{"".join(links)}</nav>'


def _subtitle(runs: Sequence[Run]) -> str:
    """Data, network and length, where the runs agree."""
    facts = []
    for label, key in (("trained on", "DATASETS.NAMES"), ("tested on", "DATASETS.TESTS")):
        found = {", ".join(map(str, run.config.get(key) or ())) for run in runs}
        if len(found) == 1 and (text := found.pop()):
            facts.append(f"{label} {text}")
    images = {len(r.evidence.clustered.paths) for r in runs if r.evidence.clustered is not None}
    if len(images) == 1:
        facts.append(f"{images.pop():,} training images")
    steps = {int(r.scalars["total_loss"][0][-1]) + 1 for r in runs if "total_loss" in r.scalars}
    if len(steps) == 1:
        facts.append(f"{steps.pop():,} steps")
    lines = [f'<p class="facts">{esc(" · ".join(facts))}</p>'] if facts else []
    return "".join(lines)
