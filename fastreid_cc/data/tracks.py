"""Which images a tracker has put together: tracklets, and when they were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .items import number


class Tracks(NamedTuple):
    """Tracklets of N images.

    Args:
        tracklets: i64 [N], 0..T-1, -1 = none; the images of one are of one camera.
        times: f64 [N], in any unit, counted in each camera by itself; nan = unknown.
    """

    tracklets: np.ndarray
    times: np.ndarray

    def order(self) -> np.ndarray:
        """i64 [M], the rows with a tracklet: by tracklet, then time (unknown last), then row."""
        by_time = np.lexsort((self.times, self.tracklets))  # stable; sorts nan last
        return by_time[self.tracklets[by_time] >= 0]

    def as_classes(self) -> np.ndarray:
        """i64 [N], the tracklets, each image without one as a tracklet of its own."""
        alone = np.arange(len(self.tracklets)) + self.tracklets.max(initial=-1) + 1
        return np.where(self.tracklets < 0, alone, self.tracklets)


def tracks_of(paths: Sequence[str], told: Mapping[str, tuple[str, float]]) -> Tracks | None:
    """The tracklets of images, numbered by name; None where none is known.

    Args:
        paths: of N images.
        told: path -> (tracklet with its camera, time or nan).

    >>> tracks_of(["a.jpg", "b.jpg", "c.jpg"], {"a.jpg": ("1/t2", 5.0), "c.jpg": ("1/t1", 3.0)})
    Tracks(tracklets=array([ 1, -1,  0]), times=array([ 5., nan,  3.]))
    """
    rows = [row for row, path in enumerate(paths) if path in told]
    if not rows:
        return None
    tracks = Tracks(np.full(len(paths), -1, np.int64), np.full(len(paths), np.nan))
    tracks.tracklets[rows] = number(told[paths[row]][0] for row in rows)[0]
    tracks.times[rows] = [told[paths[row]][1] for row in rows]
    return tracks
