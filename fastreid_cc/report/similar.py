"""How alike images are, within clusters and between them: a threshold, and a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..labels.similarities import separate
from . import maps
from .charts import Legend, legend, pair_chart
from .clusters import ClusterStats
from .runs import Clustered, TestSet

FALSE_MATCHES = 0.01  # among pairs of neighbouring clusters, at the threshold suggested


class Similarities(NamedTuple):
    """Similarities of one run's pairs, with a threshold, and the map of its images.

    Args:
        threshold: from here on two images are called the same.
        false_matches, misses: shares of pairs by the clusters; nan where there is none.
        by_identity: (of which images, the same two by their identities), where these are known.
        chart, legend: of the pairs; "" without two clusters.
        map: "" of too few images.
        shown: images on the map.
    """

    threshold: float
    false_matches: float
    misses: float
    by_identity: list[tuple[str, float, float]]
    chart: str
    legend: list[Legend]
    map: str
    shown: int


def similarities(
    images: Clustered,
    tests: Sequence[TestSet],
    stats: ClusterStats,
    doubtful: Sequence[int],
    name: str,
) -> Similarities:
    """The similarities of a run's pairs and the map; `doubtful` clusters are numbered on it."""
    pairs = separate(images.features, images.labels)
    at = pairs.threshold(FALSE_MATCHES)
    known = [("these images", images.features, images.truth)] if images.truth is not None else []
    for test in tests:
        asked = np.isin(test.identities, test.identities[: test.num_query])  # without distractors
        known.append(
            (f"test images of {test.name}", test.features, np.where(asked, test.identities, -1))
        )
    by_identity = []
    for name_of, features, truth in known:
        true = separate(features, truth)
        by_identity.append((name_of, true.false_match_rate(at), true.miss_rate(at)))
    kinds = (pairs.within, pairs.between)
    chart = pair_chart(kinds, at, f"pairs-{name}") if all(map(len, kinds)) else ""
    drawn = maps.draw(images, stats, doubtful, f"map-{name}") or ""
    return Similarities(
        threshold=at,
        false_matches=pairs.false_match_rate(at),
        misses=pairs.miss_rate(at),
        by_identity=by_identity,
        chart=chart,
        legend=legend(["two images of a cluster", "one of it, one of the nearest other cluster"]),
        map=drawn,
        shown=min(len(images.paths), maps.MAX_IMAGES),
    )
