"""Retrieval as the standard protocol counts it, per query and per pair of cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .runs import TestSet

MOST_CAMERAS = 100  # in a table; leave-one-out counts every image as one
PAIRS = 50_000_000  # distances held at a time, with the cameras of as many pairs


@dataclass(frozen=True)
class Ranking:
    """Answers to the queries of one test set. Q queries, k answers kept, C cameras.

    Args:
        precision: f64 [Q], average precision; nan where no gallery image matches.
        first: f64 [Q], 1.0 where the nearest image is right, nan as above.
        place: f64 [Q], rank of the first right image, from 1; nan as above.
        top: i64 [Q, k], rows of the test set, nearest first; -1 where the gallery is too small.
        right: bool [Q, k].
        similarity: f32 [Q, k], cosine.
        cameras: i64 [C], cameras in sorted order; none where there are more than `MOST_CAMERAS`.
        by_camera: f64 [C, C], mAP of queries of one camera (row) in the gallery images of another
            (column); nan where there is nothing to find.
    """

    precision: np.ndarray
    first: np.ndarray
    place: np.ndarray
    top: np.ndarray
    right: np.ndarray
    similarity: np.ndarray
    cameras: np.ndarray
    by_camera: np.ndarray

    @property
    def mean_precision(self) -> float:
        """mAP in percent, over the queries that have a match."""
        return _percent(self.precision)

    def matches(self, ranks: int = 20) -> np.ndarray:
        """f64 [ranks], share of the queries with a right image among the first 1, 2, ... (CMC)."""
        known = self.place[~np.isnan(self.place)]
        return (known[:, None] <= np.arange(1, ranks + 1)).mean(axis=0) if len(known) else known

    @property
    def rank1(self) -> float:
        """Rank-1 in percent."""
        return _percent(self.first)


def _percent(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return 100 * float(known.mean()) if len(known) else float("nan")


def rank(test: TestSet, *, top: int = 10) -> Ranking:
    """Ranks the gallery for every query by cosine similarity.

    Gallery images of the query's identity and camera do not count; average precision is the mean of
    the precision at each match. Distances and order are made as stock evaluation makes them, since
    a pair of near-equal distances may swap otherwise.

    Cost: O(Q G (D + log G)) time, a few times 100 million numbers at most. Source: Zheng et al.,
    Scalable Person Re-identification, ICCV 2015.
    """
    split, cameras = test.num_query, np.unique(test.cameras)
    if len(cameras) > MOST_CAMERAS:
        cameras = cameras[:0]
    step = max(1, PAIRS // max(1, len(test.paths) - split))
    blocks = (slice(start, min(start + step, split)) for start in range(0, split, step))
    parts = zip(*(_answers(test, block, top, cameras) for block in blocks), strict=True)
    precision, first, place, rows, right, similarity, crossed = map(np.concatenate, parts)
    by_camera = np.full((len(cameras), len(cameras)), np.nan)
    for i, camera in enumerate(cameras):
        mine = np.ma.masked_invalid(crossed[test.cameras[:split] == camera])
        by_camera[i] = mine.mean(axis=0).filled(np.nan)
    return Ranking(precision, first, place, rows, right, similarity, cameras, by_camera)


def _answers(
    test: TestSet, block: slice, top: int, all_cameras: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The first six fields of `Ranking` for some queries; precision by camera, f64 [q, C]."""
    features, split = torch.from_numpy(test.features), test.num_query
    distance = (1 - torch.mm(features[block], features[split:].t())).numpy()  # as stock does
    order = np.argsort(distance, axis=1)
    match = test.identities[split:][order] == test.identities[block, None]
    cameras = test.cameras[split:][order]
    keep = ~(match & (cameras == test.cameras[block, None]))
    hits = match & keep
    precision = _average_precision(hits, keep)
    listed = np.argsort(~keep, axis=1, kind="stable")[:, :top]  # places, the kept ones first
    rows, kept, right = (np.take_along_axis(a, listed, axis=1) for a in (order, keep, hits))
    near = 1 - np.take_along_axis(distance, rows, axis=1)
    first = np.where(np.isnan(precision), np.nan, right[:, 0].astype(float))
    place = np.take_along_axis(keep.cumsum(axis=1), hits.argmax(axis=1)[:, None], axis=1)[:, 0]
    place = np.where(hits.any(axis=1), place.astype(float), np.nan)
    in_camera = (keep & (cameras == camera) for camera in all_cameras)
    crossed = [_average_precision(match & seen, seen) for seen in in_camera]
    return (
        precision,
        first,
        place,
        np.where(kept, rows + split, -1),
        right,
        near,
        np.stack(crossed, 1) if crossed else np.empty((len(match), 0)),
    )


def _average_precision(hits: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """f64 [q], nan without a hit; `hits` and `counted` are bool [q, G] in the order ranked."""
    place, found = np.cumsum(counted, axis=1), np.cumsum(hits, axis=1)
    total = found[:, -1]
    ratio = np.where(hits, found / np.maximum(place, 1), 0.0).sum(axis=1)
    return np.where(total > 0, ratio / np.maximum(total, 1), np.nan)
