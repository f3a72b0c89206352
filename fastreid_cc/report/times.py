"""When a run's stages ended, and where its time went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from .runs import Run

LABEL = "cc/seconds_"
PARTS = ("extract", "neighbors", "distance", "cluster")  # in this order, then others


class Spent(NamedTuple):
    """A part of a run, how often it was done and how long it took; None where unknown."""

    part: str
    times: int | None
    seconds: float | None


def _whole(run: Run, key: str) -> int:
    found = run.config.get(key)
    return found if isinstance(found, int) else 0


def marks(run: Run) -> list[tuple[int, str]]:
    """(step, "warm-up ends" and the like), of the stages before the first labelling."""
    if run.config.get("CC.ENABLED") is not True:
        return []
    warm, source = _whole(run, "CC.WARMUP.EPOCHS"), 0
    is_folder = any(key.startswith("CC.SOURCES.FOLDERS.") for key in run.config)
    if is_folder or run.names("CC.SOURCES.NAMES"):
        source = _whole(run, "CC.SOURCES.PRETRAIN_EPOCHS")
    steps = float(_whole(run, "CC.ITERS_PER_EPOCH"))
    first = run.scalars.get("cc/num_clusters")
    if not steps and first is not None and max(warm, source):
        steps = first[0][0] / max(warm, source)
    ends = [(warm, "warm-up ends")] if warm else []
    ends += [(source, "source stage ends")] if source > warm else []
    last = max((int(series[0][-1]) for series in run.scalars.values()), default=0)
    return [(round(e * steps), text) for e, text in ends if 0 < e * steps < last]


def common_marks(runs: Sequence[Run]) -> list[tuple[int, str]]:
    """The marks of the runs, where all that have some have the same."""
    found = {tuple(marks(run)) for run in runs} - {()}
    return list(found.pop()) if len(found) == 1 else []


def duration(run: Run) -> float | None:
    """Seconds from start to end; None where they are not known, or of a resumed run."""
    if "resumed" in run.versions:
        return None
    try:
        start, end = (
            datetime.strptime(run.versions[key], "%Y-%m-%d %H:%M:%S UTC")
            for key in ("started", "ended")
        )
    except (KeyError, ValueError):
        return None
    return (end - start).total_seconds()


def spent(run: Run) -> list[Spent]:
    """Where the time went: steps by stage, labellings by part, the rest, the whole."""
    found: list[Spent] = []
    if "time" in run.scalars:
        steps, each = run.scalars["time"]
        lengths = np.diff(steps, prepend=-1)
        begin = 0
        for end, name in [*marks(run), (int(steps[-1]) + 1, "")]:
            mine = (steps >= begin) & (steps < end)
            stage = name.removesuffix(" ends") if name else ("after it" if begin else "all")
            seconds = float((lengths * each)[mine].sum())
            found.append(Spent(f"training steps, {stage}", int(lengths[mine].sum()), seconds))
            begin = end
    parts = [key[len(LABEL) :] for key in run.scalars if key.startswith(LABEL)]
    for part in sorted(parts, key=lambda part: (*PARTS, part).index(part)):
        values = run.scalars[LABEL + part][1]
        found.append(Spent(f"labels: {part}", len(values), float(values.sum())))
    total = duration(run)
    if total is not None:
        rest = total - sum(part.seconds or 0 for part in found)
        if rest > 0:
            found.append(Spent("evaluation, checkpoints, start", None, rest))
        found.append(Spent("from start to end", None, total))
    return found


def clock(seconds: float | None) -> str:
    """Seconds for people: "0.4 s", "48 s", "7 min 54 s", "2 h 05 min"."""
    if seconds is None:
        return ""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
    )
