"""What to watch, in words: the rows of the table in docs/own-images.md that a run shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..labels.helped import MOST_WRONG, is_worse
from .runs import Run

# Rules of thumb, from which a sign is said to show.
MANY_OUTLIERS = 0.4
NEAR_ONE_CAMERA = 1.2
HUGE = 10  # times the median
UNSETTLED = 0.7  # a sound run had 0.75 half-way


class Advice(NamedTuple):
    """A row of the table: what is seen, what it means, what to try."""

    sign: str
    meaning: str
    remedy: str


ADVICE = {
    "cameras": Advice(
        "1.0-1.2 cameras per cluster",
        "clusters follow the camera, the count may still look right",
        "`CC.EXTRACT.BN camera`, `CC.DISTANCE.NAME ca_jaccard`, warm-up",
    ),
    "outliers": Advice(
        "outliers far above a third after several epochs",
        "eps too small, or features tell nothing yet",
        "raise `CC.CLUSTER.DBSCAN.EPS` by 0.05, warm-up, a pretrained model",
    ),
    "huge": Advice("one huge cluster", "eps too large", "lower `CC.CLUSTER.DBSCAN.EPS` by 0.05"),
    "few": Advice(
        "fewer clusters than a batch wants",
        "batches shrink, said in the log",
        "lower `SOLVER.IMS_PER_BATCH` or `DATALOADER.NUM_INSTANCE`",
    ),
    "unsettled": Advice(
        "labels that still change at the end",
        "training has not settled",
        "more epochs, a lower rate at the end",
    ),
    "harm": Advice(
        "mAP below that of the start",
        "training harms here",
        "a lower rate, fewer epochs, or the weights it started from",
    ),
    "less": Advice(
        "`mirror_rank` well below that of the start, no mAP",
        "images are confused that were not: training probably harms",
        "a lower rate, fewer epochs, or the weights it started from",
    ),
    "foreign": Advice(
        "`start/wrong_answers` above 0.15",
        "the starting weights know nobody here: clusters of poses or places",
        "weights of more similar images, `CC.FOLDER.CAMERA`, a few individuals to measure",
    ),
}


class Finding(NamedTuple):
    """A row that applies, and the run's figure."""

    figure: str
    advice: Advice


class Verdict(NamedTuple):
    """What a run shows: `figures` in words, and the rows of the table that apply."""

    name: str
    figures: list[str]
    findings: list[Finding]


def judge(run: Run) -> Verdict | None:
    """The verdict on the last labelling of a run; None of one that made no labels."""
    if run.last("cc/num_clusters") is None:
        return None
    return Verdict(run.name, _figures(run), list(_findings(run)))


def _figures(run: Run) -> list[str]:
    """What a healthy run is known by, as far as it is recorded."""
    found = []
    if (clusters := run.last("cc/num_clusters")) is not None:
        found.append(f"{clusters:,.0f} clusters")
    if (share := run.last("cc/outlier_share")) is not None:
        found.append(f"{100 * share:.1f} % outliers")
    if has_cameras(run) and (cameras := run.last("cc/cameras_per_cluster")) is not None:
        found.append(f"{cameras:.1f} cameras per cluster")
    if (alike := run.last("cc/stability")) is not None:
        found.append(f"labels {alike:.2f} like those before (ARI)")
    if (ranks := _mirror_ranks(run)) is not None:
        found.append("found by their mirror image {:.3f} → {:.3f}".format(*ranks))
    return found


def _mirror_ranks(run: Run) -> tuple[float, float] | None:
    """The figure of the start and of the end that needs no identities."""
    before, after = run.last("start/mirror_rank"), run.last("mirror_rank")
    return None if before is None or after is None else (before, after)


def has_cameras(run: Run) -> bool:
    """Whether there is more than one camera, as far as is known."""
    if run.features.clustered is not None:
        return len(np.unique(run.features.clustered.cameras)) > 1
    found = run.scalars.get("cc/cameras_per_cluster")
    return found is not None and bool((found[1] > 1).any())


def _findings(run: Run) -> Iterator[Finding]:
    clusters = run.last("cc/num_clusters") or 0
    cameras, outliers = run.last("cc/cameras_per_cluster"), run.last("cc/outlier_share")
    if clusters and cameras is not None and has_cameras(run) and cameras < NEAR_ONE_CAMERA:
        yield Finding(f"{cameras:.2f} cameras per cluster", ADVICE["cameras"])
    if outliers is not None and outliers > MANY_OUTLIERS:
        yield Finding(f"{100 * outliers:.0f} % of the images are outliers", ADVICE["outliers"])
    largest, median = run.last("cc/size_max"), run.last("cc/size_median")
    if clusters == 1:
        yield Finding("there is one cluster", ADVICE["huge"])
    elif largest and median and largest > HUGE * median:
        text = f"the largest cluster has {largest:,.0f} images, the median one {median:,.0f}"
        yield Finding(text, ADVICE["huge"])
    batch, each = run.config.get("SOLVER.IMS_PER_BATCH"), run.config.get("DATALOADER.NUM_INSTANCE")
    if isinstance(batch, int) and isinstance(each, int) and each and clusters < batch // each:
        text = f"{clusters:,.0f} clusters, a batch wants {batch // each}"
        yield Finding(text, ADVICE["few"])
    alike = run.last("cc/stability")
    if alike is not None and alike < UNSETTLED:
        text = f"the last two labellings are {alike:.2f} alike (ARI)"
        yield Finding(text, ADVICE["unsettled"])
    before, after = run.before(), run.last(run.measured("mAP"))
    if before is not None and after is not None:
        if after < before:
            yield Finding(f"mAP went from {before:.1f} to {after:.1f} %", ADVICE["harm"])
    elif (ranks := _mirror_ranks(run)) is not None and is_worse(*ranks):
        yield Finding("mirror_rank went from {:.3f} to {:.3f}".format(*ranks), ADVICE["less"])
    wrong = run.last("start/wrong_answers")
    if wrong is not None and wrong > MOST_WRONG:
        text = f"{100 * wrong:.0f} % wrong answers by the first clusters"
        yield Finding(text, ADVICE["foreign"])
