"""Choosing eps: MMT's automatic rule, and a sweep over one distance graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..labels.numbering import outliers_as_clusters
from ..structures import PseudoLabels


def automatic_eps(graph: sp.csr_array, rho: float, cut: float) -> float:
    """The mean of the smallest rho N (N - 1) / 2 pairwise distances (MMT, Ge et al., ICLR 2020).

    A zero between two images (duplicates; up to 1e-6, rounding) is left out of the mean, as in MMT;
    the share is of all pairs here, of the non-zero ones there.

    Args:
        graph: f32 [N, N], symmetric, pairs at most `cut` apart.
        rho: share of the pairs; MMT uses 1.6e-3.
        cut: radius of the graph.
    Raises:
        ValueError: if the graph holds fewer pairs than that, or none.

    Limits: the number of pairs grows with N^2, that of same-identity pairs with N, so one rho fits
    one size: 1.6e-3 was set for 13,000 to 16,000 images of 700 identities. Far above that the rule
    reaches past the radius and is refused; far below it is too strict.
    """
    n = graph.shape[0]
    rows = np.repeat(np.arange(n), np.diff(graph.indptr))
    distances = graph.data[(graph.indices > rows) & (graph.data > 1e-6)]
    wanted = max(1, round(rho * n * (n - 1) / 2))
    if len(distances) < wanted:
        raise ValueError(
            f"CC.CLUSTER.DBSCAN.AUTO_RHO={rho} asks for the {wanted:,} nearest pairs of {n:,} "
            f"images, but only {len(distances):,} are within {cut}. The rule does not fit this "
            "data set: lower AUTO_RHO, or set AUTO_RHO 0 and choose EPS with a sweep."
        )
    nearest = np.partition(distances, wanted - 1)[:wanted]
    return float(np.mean(nearest, dtype=np.float64))


@dataclass(frozen=True)
class SweepRow:
    """What one eps gives.

    Args:
        eps: the radius.
        labels: what was found.
        sizes: smallest, median and largest cluster; zeros without clusters.
        stability: adjusted Rand index of the labels with those at the next eps, outliers as single
            clusters; nan for the last eps.
    """

    eps: float
    labels: PseudoLabels
    sizes: tuple[int, float, int]
    stability: float


def sweep(labeler: Any, values: Iterable[float]) -> list[SweepRow]:
    """Clusters the labeler's last graph once per eps.

    Args:
        labeler: a `PseudoLabeler` that has labelled, with max_eps at least the largest value.
        values: eps, in any order.
    Returns:
        one row per eps, ascending.
    """
    from sklearn.metrics import adjusted_rand_score

    found = [labeler.relabel(float(eps)) for eps in sorted(values)]
    alone = [outliers_as_clusters(entry.labels) for entry in found]
    rows = []
    for at, entry in enumerate(found):
        sizes = np.bincount(entry.labels[entry.labels >= 0])
        spread = (int(sizes.min()), float(np.median(sizes)), int(sizes.max())) if len(sizes) else ()
        last = at + 1 == len(found)
        stability = float("nan") if last else float(adjusted_rand_score(alone[at], alone[at + 1]))
        rows.append(SweepRow(float(entry.eps or 0), entry, spread or (0, 0.0, 0), stability))
    return rows


def sweep_table(rows: list[SweepRow]) -> str:
    """The sweep as text, one line per eps."""
    head = "  eps  clusters  outliers   share  sizes min/median/max  stability"
    lines = [head]
    for row in rows:
        labels, (low, middle, high) = row.labels, row.sizes
        share = labels.num_outliers / max(1, len(labels.labels))
        sizes = f"{low}/{middle:g}/{high}"
        lines.append(
            f"{row.eps:5.3f}  {labels.num_clusters:8,}  {labels.num_outliers:8,}  {share:6.1%}  "
            f"{sizes:>21}  {row.stability:9.3f}"
        )
    return "\n".join(lines)


def sweep_plot(rows: list[SweepRow]) -> str:
    """The sweep as an SVG picture: clusters, outliers and stability over eps."""
    width, height, left, top = 640, 180, 70, 30
    eps = [row.eps for row in rows]
    series = {
        "clusters": [float(row.labels.num_clusters) for row in rows],
        "outliers": [float(row.labels.num_outliers) for row in rows],
        "stability (ARI with the next eps)": [row.stability for row in rows],
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 100}" '
        f'height="{3 * (height + 60)}" font-family="sans-serif" font-size="12">'
    ]
    for panel, (title, values) in enumerate(series.items()):
        base = panel * (height + 60) + top
        top_value = max([v for v in values if v == v] or [1.0]) or 1.0
        low_eps, span = min(eps), (max(eps) - min(eps)) or 1.0
        points = [
            (left + width * (x - low_eps) / span, base + height * (1 - y / top_value))
            for x, y in zip(eps, values, strict=True)
            if y == y
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<text x="{left}" y="{base - 10}">{title}</text>')
        parts.append(
            f'<rect x="{left}" y="{base}" width="{width}" height="{height}" fill="none" '
            'stroke="#bbb"/>'
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="#06c" stroke-width="2"/>')
        parts.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#06c"/>' for x, y in points)
        parts.append(f'<text x="5" y="{base + 12}">{top_value:,.6g}</text>')
        parts.append(f'<text x="5" y="{base + height}">0</text>')
        for x in sorted({eps[0], eps[len(eps) // 2], eps[-1]}):
            at = left + width * (x - low_eps) / span
            parts.append(f'<text x="{at - 12:.1f}" y="{base + height + 16}">{x:g}</text>')
    return "\n".join([*parts, "</svg>", ""])
