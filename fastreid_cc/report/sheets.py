"""The chapters of the page that show images: retrieval, clusters, outliers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .clusters import ClusterStats, choose, spread
from .markup import esc, note, number, section, shot
from .pictures import Album
from .ranking import Ranking
from .runs import Clustered, Run, TestSet

PER_CLUSTER = 12
DIFFERENT = 4  # queries on which runs differ most


def retrieval(
    runs: Sequence[Run], rankings: Sequence[Sequence[Ranking]], album: Album, *, queries: int
) -> str:
    """Queries with their nearest gallery images, every run's answers one below the other."""
    parts = []
    for name in dict.fromkeys(test.name for run in runs for test in run.evidence.tests):
        found = _of_one_set(runs, rankings, name)
        precision = np.stack([ranking.precision for _, _, ranking in found])
        valid = np.flatnonzero(~np.isnan(precision).any(axis=0))
        if not len(valid):
            continue
        order = valid[np.argsort(precision[0, valid], kind="stable")]
        chosen = spread(order, queries)
        parts.append(f"<h3>{esc(name)}</h3>{_agreement(found)}")
        parts.append(
            note(
                "Queries evenly from the worst to the best"
                + (f" of {found[0][0].name}" if len(found) > 1 else "")
                + ", by average precision (AP)."
            )
        )
        parts += [_query(found, row, album) for row in chosen]
        gap = np.ptp(precision, axis=0)[valid]
        apart = valid[np.argsort(-gap, kind="stable")]
        apart = apart[~np.isin(apart, chosen)][:DIFFERENT]
        if len(found) > 1 and len(apart):
            parts.append("<h4>Where the runs differ most</h4>")
            parts += [_query(found, row, album) for row in apart]
    if not parts:
        return ""
    legend = (
        '<p class="note"><span class="key right">✓</span> same identity &nbsp; '
        '<span class="key wrong">✗</span> another identity. Gallery images of the query\'s own '
        "identity and camera do not count and are not shown. The number is the similarity.</p>"
    )
    return section("retrieval", "Retrieval", legend, *parts)


def _of_one_set(
    runs: Sequence[Run], rankings: Sequence[Sequence[Ranking]], name: str
) -> list[tuple[Run, TestSet, Ranking]]:
    """The runs measured on the same images under one name, as the first of them."""
    found: list[tuple[Run, TestSet, Ranking]] = []
    for run, ranked in zip(runs, rankings, strict=True):
        for test, ranking in zip(run.evidence.tests, ranked, strict=True):
            if test.name == name and (not found or test.paths == found[0][1].paths):
                found.append((run, test, ranking))
    return found


def _agreement(found: Sequence[tuple[Run, TestSet, Ranking]]) -> str:
    """The mAP of these features beside the one the run logged."""
    lines = []
    for run, test, ranking in found:
        key = f"{test.name}/mAP" if f"{test.name}/mAP" in run.scalars else "mAP"
        logged = run.last(key)
        text = f"{run.name}: mAP {number(ranking.mean_precision)} %, Rank-1 {number(ranking.rank1)}"
        text += " % from the checkpoint's features"
        if logged is not None:
            text += f"; logged by the run {number(logged)} %"
            if abs(logged - ranking.mean_precision) > 0.5:
                text += " (another checkpoint, re-ranking, or other images)"
        lines.append(note(text + "."))
    return "".join(lines)


def _query(found: Sequence[tuple[Run, TestSet, Ranking]], row: int, album: Album) -> str:
    _, test, _ = found[0]
    asked = shot(album, test.paths[row], f"camera {test.cameras[row]}", "query", "query")
    lines = []
    for run, own, ranking in found:
        shots = []
        for rank, right, near in zip(
            ranking.top[row], ranking.right[row], ranking.similarity[row], strict=True
        ):
            if rank >= 0:
                mark, kind = ("✓", "right") if right else ("✗", "wrong")
                label = "same identity" if right else "another identity"
                label += f", camera {own.cameras[rank]}"
                shots.append(shot(album, own.paths[rank], f"{mark} {near:.2f}", kind, label))
        name = f"{esc(run.name)} · " if len(found) > 1 else ""
        lines.append(
            f'<div class="answers"><h5>{name}AP {number(100 * ranking.precision[row], 0)} %</h5>'
            f'<div class="shots">{"".join(shots)}</div></div>'
        )
    return f'<div class="asked">{asked}<div class="grow">{"".join(lines)}</div></div>'


def clusters(
    run: Run, facts: ClusterStats, album: Album, *, count: int, anchor: str, title: str = "Clusters"
) -> str:
    """Contact sheets of one run's clusters."""
    images = run.evidence.clustered
    assert images is not None
    parts = [
        note(
            "Labels of the last labelling, similarities by the final network. In each cluster"
            " images go from the most to the least typical; c is the camera. Tightness: mean cosine"
            " to the centre. Margin: the same less the cosine to the nearest other centre."
            + (
                " A red frame and ≠ mark an identity other than the cluster's most frequent one."
                if images.truth is not None
                else ""
            )
        )
    ]
    for kind, rule, chosen in choose(facts, count):
        cards = [_cluster(images, facts, int(cluster), album) for cluster in chosen]
        parts.append(f"<h3>{esc(kind)} <small>{esc(rule)}</small></h3>")
        parts.append(f'<div class="sheets">{"".join(cards)}</div>')
    return section(anchor, title, *parts)


def _cluster(images: Clustered, facts: ClusterStats, cluster: int, album: Album) -> str:
    members = np.flatnonzero(images.labels == cluster)
    order = members[np.argsort(-facts.own[members], kind="stable")]
    shots = []
    for row in spread(order, PER_CLUSTER):
        odd = _is_odd(images, facts, cluster, int(row))
        caption = f"{'≠ ' if odd else ''}c{images.cameras[row]}"
        label = f"camera {images.cameras[row]}, similarity {facts.own[row]:.2f}"
        label += ", another identity" if odd else ""
        shots.append(shot(album, images.paths[row], caption, "odd" if odd else "", label))
    figures = [
        f"{facts.sizes[cluster]:,} images",
        _cameras(int(facts.cameras[cluster])),
        f"tightness {facts.tightness[cluster]:.2f}",
        f"margin {facts.margin[cluster]:.2f}",
    ]
    if facts.purity is not None and np.isfinite(facts.purity[cluster]):
        figures.append(f"purity {100 * facts.purity[cluster]:.0f} %")
    more = len(members) - len(shots)
    rest = f'<p class="note">and {more:,} more</p>' if more else ""
    return (
        f'<article class="card"><h4>Cluster {cluster}</h4><p class="note">'
        f'{esc(" · ".join(figures))}</p><div class="shots">{"".join(shots)}</div>{rest}</article>'
    )


def _cameras(count: int) -> str:
    return "1 camera" if count == 1 else f"{count} cameras"


def _is_odd(images: Clustered, facts: ClusterStats, cluster: int, row: int) -> bool:
    if images.truth is None or facts.majority is None or images.truth[row] < 0:
        return False
    return bool(images.truth[row] != facts.majority[cluster])


def outliers(
    run: Run, facts: ClusterStats, album: Album, *, count: int, anchor: str, title: str = "Outliers"
) -> str:
    """Outliers of one run, each beside the most typical image of the cluster it is nearest to."""
    images = run.evidence.clustered
    assert images is not None
    lone = np.flatnonzero(images.labels < 0)
    if not len(lone):
        return section(anchor, title, note("The last labelling left none."))
    order = lone[np.argsort(-facts.other[lone], kind="stable")]
    cards = []
    for row in spread(order, count):
        cluster = int(facts.nearest[row])
        members = np.flatnonzero(images.labels == cluster)
        core = int(members[np.argmax(facts.own[members])])
        belongs = ""
        if images.truth is not None and facts.majority is not None and images.truth[row] >= 0:
            same = images.truth[row] == facts.majority[cluster]
            belongs = " ✓" if same else " ✗"
        first = shot(album, images.paths[row], f"c{images.cameras[row]}", "query", "outlier")
        second = shot(
            album,
            images.paths[core],
            f"{facts.other[row]:.2f}{belongs}",
            "core",
            f"most typical of cluster {cluster}",
        )
        cards.append(f'<div class="pair">{first}{second}</div>')
    text = (
        f"{len(lone):,} images in no cluster; {len(cards)} of them, evenly from the nearest to a"
        " cluster to the farthest. Left the outlier, right the most typical image of the nearest"
        " cluster, below it the similarity to that cluster's centre"
        + (" and whether it is the same identity." if images.truth is not None else ".")
    )
    return section(anchor, title, note(text), f'<div class="shots">{"".join(cards)}</div>')
