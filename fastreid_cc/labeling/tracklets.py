"""Links between images out of tracklets and out of a person's answers.

Where they conflict, the stronger counts: 1. answers, 2. tracklets that overlap in time must not be
together, 3. images of a tracklet must. A tracklet that looks like two individuals is cut first.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from ..data.tracks import Tracks
from ..registry import Part
from .answers import Answers, chains
from .links import Links, Sets, enemies_of

_ROWS = 8192  # images whose sums are held at once
_OTHERS = 16  # other tracklets of its camera that a tracklet is compared with
NO_PAIRS = np.empty((0, 2), np.int64)


@dataclass(frozen=True, kw_only=True)
class LinkOptions(Part):
    """What makes links (config node CC.LINKS); tracklets are told by CC.FOLDER.TRACKLET and TIME.

    Args:
        tracklets: images of a tracklet must share a cluster.
        overlap: tracklets of one camera that overlap in time must not.
        pool: features of images that belong together, by tracklets or answers, are drawn this far
            to their mean before they are clustered; 0 = not at all. Where an individual has few and
            long tracklets, first labels are far better with 0.5; where it has many and short ones,
            cameras then stay apart (docs/own-images.md). For tracklets to find each other
            CC.DISTANCE.JACCARD.K1 should be twice their length.
        cut: a tracklet is cut where its images change most, if the parts before and after are less
            alike than this share of such parts of different tracklets of a camera; 0 = never. What
            is cut stays cut: a network learns to see a wrong tracklet as one individual.
        file: CSV with the columns first, second and same: two paths below CC.FOLDER.ROOT and "yes",
            "no" or nothing, as a person answered. Answers come before tracklets. "" = none.
    """

    key = "CC.LINKS"
    limits = {"pool": "[0, 1]", "cut": "[0, 1)"}

    tracklets: bool = True
    overlap: bool = True
    pool: float = 0.0
    cut: float = 0.9
    file: str = ""


class Linker:
    """Makes the links of a data set; those of a labelling depend on features only where it cuts.

    `parts`, i64 [N], are the tracklets with all cuts so far, which a checkpoint keeps.

    Args:
        options: which links to make.
        cameras: i64 [N].
        tracks: tracklets of the images, None if none is known.
        answers: of a person, None without.
    """

    def __init__(
        self,
        options: LinkOptions,
        cameras: np.ndarray,
        tracks: Tracks | None = None,
        answers: Answers | None = None,
    ) -> None:
        nothing = Tracks(np.full(len(cameras), -1, np.int64), np.full(len(cameras), np.nan))
        self.options, self.cameras = options, cameras
        self.tracks = nothing if tracks is None else tracks
        self.answers = Answers(NO_PAIRS, NO_PAIRS) if answers is None else answers
        self.parts = self.tracks.tracklets
        self._fixed: Links | None = None

    def __call__(self, features: Tensor) -> Links:
        """The links for a labelling of features [N, D].

        Cost: where tracklets are cut O(N D), 8192 rows at a time; else nothing but at first, which
        takes O(N + pairs of overlapping tracklets + answers) steps.
        """
        if self._fixed is None or self.options.cut > 0:
            if self.options.cut > 0:
                now = Tracks(self.parts, self.tracks.times)
                self.parts = cut(features, now, self.cameras, self.options.cut)
            self._fixed = self._links(self.parts)
        return self._fixed

    def _links(self, tracklets: np.ndarray) -> Links:
        num_cut = len(np.unique(tracklets)) - len(np.unique(self.tracks.tracklets))
        images, same, other = len(self.cameras), self.answers.same, self.answers.other
        first_image = tracklets.max(initial=-1) + 1  # names: tracklets, then images with a "no"
        # 1. Answers; between tracklets that they join, overlapping says nothing.
        apart = NO_PAIRS
        if self.options.overlap:
            apart = overlapping(tracklets, self.tracks, self.cameras)
        joined = _joined(tracklets, chains(same, images))
        kept = np.array([pair not in joined for pair in map(tuple, apart.tolist())], bool)
        # 2. Names that are enemies: tracklets that overlap, images with a "no" between them.
        pairs = np.concatenate([apart[kept], other + first_image])
        enemies = enemies_of(map(tuple, pairs.tolist()))
        names = {
            row: own
            for row, tracklet in enumerate(tracklets.tolist())
            if (own := {name for name in (tracklet, row + first_image) if name in enemies})
        }
        # 3. Images join: those that answers say, then those of each tracklet one after the other.
        sets = Sets(images, names, enemies)
        refused = sets.join_all(same)
        assert not refused, "answers were checked as they were read"
        if self.options.tracklets:
            order = Tracks(tracklets, self.tracks.times).order()
            follows = tracklets[order[1:]] == tracklets[order[:-1]]
            refused = sets.join_all(np.column_stack([order[:-1], order[1:]])[follows])
        figures = {"cut_tracklets": num_cut, "link_conflicts": refused + int((~kept).sum())}
        must, cannot = _of_sets(sets.roots(), names, pairs)
        figures = {"links_must": len(must), "links_cannot": len(cannot), **figures}
        return Links(must, cannot, figures, self.options.pool)


def overlapping(tracklets: np.ndarray, tracks: Tracks, cameras: np.ndarray) -> np.ndarray:
    """Pairs of tracklets, each of one camera, that were seen at the same time.

    A tracklet lasts from its first known time to its last, both included; one of which no time is
    known, and parts of one tracklet, overlap nothing.

    Args:
        tracklets: i64 [N], tracklets or parts of them, -1 = none.
        tracks: the tracklets as a whole, and the times.
        cameras: i64 [N].
    Returns:
        i64 [P, 2], the lower number first. Cost: O(N log N + P).
    """
    timed = np.flatnonzero((tracklets >= 0) & ~np.isnan(tracks.times))
    timed = timed[np.lexsort((tracks.times[timed], tracklets[timed]))]
    names, first = np.unique(tracklets[timed], return_index=True)
    last = np.append(first[1:], len(timed)) - 1
    start, end = tracks.times[timed[first]], tracks.times[timed[last[: len(first)]]]
    camera, whole = cameras[timed[first]], tracks.tracklets[timed[first]]
    found = [NO_PAIRS]
    for one in np.unique(camera):
        at = np.flatnonzero(camera == one)
        at = at[np.argsort(start[at], kind="stable")]
        until = np.searchsorted(start[at], end[at], side="right")
        counts = until - np.arange(len(at)) - 1  # those that begin after it and before its end
        a = np.repeat(np.arange(len(at)), counts)
        b = a + 1 + np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts)
        pairs = np.column_stack([at[a], at[b]])
        found.append(names[pairs[whole[pairs[:, 0]] != whole[pairs[:, 1]]]])
    return np.sort(np.concatenate(found), axis=1)


def cut(features: Tensor, tracks: Tracks, cameras: np.ndarray, share: float) -> np.ndarray:
    """Cuts each tracklet that looks like two individuals in two.

    A tracklet of images x_1 .. x_n, in order of time, has its change at the s that parts them best,
    s (n - s) / n |mean(x_1..x_s) - mean(x_s+1..x_n)|² (least squares). It is cut there if the
    cosine of the two means is below the quantile `share` of what the first part of one tracklet
    and the second of another of its camera have, over 16 others of each.

    Args:
        features: [N, D], on any device.
        tracks: the tracklets.
        cameras: i64 [N].
        share: quantile, above 0.
    Returns:
        i64 [N], the tracklets; second parts have numbers of their own.
    """
    order, found = tracks.order(), tracks.tracklets.copy()
    names, first, sizes = np.unique(tracks.tracklets[order], return_index=True, return_counts=True)
    first, sizes = first[sizes > 1], sizes[sizes > 1]
    halves, change, begin = [], [], 0
    while begin < len(first):  # whole tracklets, about _ROWS images of them
        room = np.searchsorted(first, first[begin] + _ROWS, side="left")
        until = max(begin + 1, int(room))
        own = slice(begin, until)
        at = np.concatenate(
            [np.arange(f, f + n) for f, n in zip(first[own], sizes[own], strict=True)]
        )
        rows = features[torch.from_numpy(order[at]).to(features.device)]
        unit = torch.nn.functional.normalize(rows.double().cpu()).numpy()
        means, where = _halves(unit, sizes[own])
        halves.append(means)
        change.append(where)
        begin = until
    if not halves:
        return found
    before, after = np.concatenate(halves, axis=1)
    others = _of_different(before, after, cameras[order[first]])
    if not len(others):
        return found
    is_cut = (before * after).sum(1) < np.quantile(others, share)
    for f, n, s in zip(first[is_cut], sizes[is_cut], np.concatenate(change)[is_cut], strict=True):
        found[order[f + s : f + n]] += names.max() + 1
    return found


def _halves(rows: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(unit means f32 [2, T, D] before and after the change, i64 [T] images before it)."""
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    start = np.cumsum(sizes) - sizes
    of = np.repeat(np.arange(len(sizes)), sizes - 1)  # candidates: one to n - 1 images before
    before = 1 + np.arange(len(of)) - np.repeat(np.cumsum(sizes - 1) - (sizes - 1), sizes - 1)
    after = sizes[of] - before
    left = (sums[start[of] + before] - sums[start[of]]) / before[:, None]
    right = (sums[start[of] + sizes[of]] - sums[start[of] + before]) / after[:, None]
    gain = before * after / sizes[of] * ((left - right) ** 2).sum(1)
    best = np.lexsort((before, -gain, of))
    best = best[np.unique(of[best], return_index=True)[1]]
    means = np.stack([left[best], right[best]])
    means /= np.maximum(np.linalg.norm(means, axis=2, keepdims=True), 1e-12)
    return means.astype(np.float32), before[best]


def _of_different(before: np.ndarray, after: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Cosines of parts of different tracklets of a camera."""
    found = [np.empty(0, np.float32)]
    for camera in np.unique(cameras):
        own = np.flatnonzero(cameras == camera)
        for step in range(1, min(_OTHERS, len(own) - 1) + 1):
            found.append((before[own] * after[np.roll(own, step)]).sum(1))
    return np.concatenate(found)


def _joined(tracklets: np.ndarray, chain: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of tracklets, the lower number first, that hold images of one chain of answers."""
    order = np.argsort(chain, kind="stable")
    several = np.bincount(chain)[chain[order]] > 1
    of_chain = defaultdict(set)
    for row in order[several & (tracklets[order] >= 0)].tolist():
        of_chain[chain[row]].add(int(tracklets[row]))
    return {pair for found in of_chain.values() for pair in combinations(sorted(found), 2)}


def _of_sets(
    roots: np.ndarray, names: dict[int, set[int]], pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(must, cannot): images next to each other in a set; one pair for each two sets of enemies."""
    order = np.argsort(roots, kind="stable")
    follows = roots[order[1:]] == roots[order[:-1]]
    must = np.column_stack([order[:-1], order[1:]])[follows]
    sets_of: dict[int, set[int]] = defaultdict(set)
    for row, own in names.items():
        for name in own:
            sets_of[name].add(int(roots[row]))
    apart = {
        (min(a, b), max(a, b)) for x, y in pairs.tolist() for a in sets_of[x] for b in sets_of[y]
    }
    return must, np.array(sorted(apart), np.int64).reshape(-1, 2)
