"""Few-shot episodes: who is it, of W people enrolled with S images each? From features alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CHUNK = 2**24  # numbers held at a time
ROUNDS = 1000  # draws of camera orders for a person until there are queries left


@dataclass(frozen=True)
class Episodes:
    """Episodes of W people, S enrolled images and Q queries each.

    Args:
        support: i64 [E, W, S], rows of the images enrolled.
        query: i64 [E, W, Q], rows of the images to be told; the w-th are the w-th person's.
    """

    support: np.ndarray
    query: np.ndarray

    def __len__(self) -> int:
        return len(self.support)


@dataclass(frozen=True)
class People:
    """The people who have images enough for an episode, and their images.

    Args:
        rows: i64 [P, M], rows of each person's images; -1 behind the last.
        cameras: i64 [P, M], the camera of each, numbered from 0 for each person.
    """

    rows: np.ndarray
    cameras: np.ndarray


def find_people(ids: np.ndarray, cameras: np.ndarray | None, shots: int, queries: int) -> People:
    """The people with `shots` images and, on other cameras, `queries` more.

    Args:
        ids: i64 [N], < 0 = nobody's.
        cameras: i64 [N]; None = the cameras do not matter, a query may be of any.
    """
    order = np.argsort(ids, kind="stable")
    order = order[ids[order] >= 0]
    starts = np.unique(ids[order], return_index=True)[1]
    members = np.split(order, starts[1:]) if len(order) else []
    seen = [
        np.arange(len(m)) if cameras is None else np.unique(cameras[m], return_inverse=True)[1]
        for m in members
    ]
    kept = [
        i for i, own in enumerate(seen) if _can_be_split(np.bincount(own).tolist(), shots, queries)
    ]
    width = max((len(members[i]) for i in kept), default=0)
    rows, where = (np.full((len(kept), width), -1, dtype=np.int64) for _ in range(2))
    for at, i in enumerate(kept):
        rows[at, : len(members[i])], where[at, : len(members[i])] = members[i], seen[i]
    return People(rows, where)


def _can_be_split(sizes: list[int], shots: int, queries: int) -> bool:
    """Whether some cameras hold `shots` images or more and the rest `queries` or more."""
    reachable, most = 1, sum(sizes) - queries  # bit t: some cameras hold t images
    for size in sizes:
        reachable |= reachable << size
    return most >= shots and (reachable & ((1 << (most + 1)) - 1)) >> shots > 0


def draw(
    ids: np.ndarray,
    cameras: np.ndarray | None,
    *,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
) -> Episodes:
    """Draws episodes; without `cameras` enrolled images and queries may be of one camera.

    A person's cameras come in random order; those that hold the first `shots` images are enrolled
    from, the others asked. People, cameras and images are drawn anew in every episode.

    Args:
        ids: i64 [N], < 0 = nobody's. cameras: i64 [N] or None.
        ways: W, people of an episode; 0 = all that have images enough.

    Raises:
        ValueError: with the counts, if too few people have images enough.

    Cost: E·W·M·log M for people of M images at most, in pieces of 16 million numbers.
    """
    people = find_people(ids, cameras, shots, queries)
    found = len(people.rows)
    if found < max(ways, 2):
        raise ValueError(_too_few(ids, cameras, ways, shots, queries, found))
    ways = ways or found
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // max(found, ways * people.rows.shape[1]))
    parts = []
    for start in range(0, episodes, step):
        count = min(step, episodes - start)
        who = generator.random((count, found)).argsort(axis=1)[:, :ways]
        parts.append(_split(people, who.ravel(), shots, queries, generator))
    support, query = (np.concatenate(side) for side in zip(*parts, strict=True))
    return Episodes(support.reshape(episodes, ways, shots), query.reshape(episodes, ways, queries))


def _too_few(
    ids: np.ndarray, cameras: np.ndarray | None, ways: int, shots: int, queries: int, found: int
) -> str:
    """What to say where `found` people are fewer than an episode holds."""
    all_people = np.unique(ids[ids >= 0])
    anywhere = len(find_people(ids, None, shots, queries).rows)
    enough = f"{found} of {len(all_people)} people have {shots} images to enrol and"
    if cameras is None:
        return (
            f"{enough} {queries} more to ask; an episode wants {max(ways, 2)}. Lower ways, shots or"
            " queries."
        )
    return (
        f"{enough}, on other cameras, {queries} more to ask; an episode wants {max(ways, 2)}. Lower"
        f" ways, shots or queries; if queries may be of the enrolled cameras, {anywhere} have"
        " enough."
    )


def _split(
    people: People, who: np.ndarray, shots: int, queries: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(support i64 [T, S], query i64 [T, Q]) of people i64 [T]."""
    rows, cameras = people.rows[who], people.cameras[who]
    is_enrolled = np.zeros(rows.shape, bool)
    left = np.arange(len(who))
    for _ in range(ROUNDS):
        side = _enrolled_side(cameras[left], shots, generator)
        fits = ((rows[left] >= 0) & ~side).sum(1) >= queries
        is_enrolled[left[fits]] = side[fits]
        left = left[~fits]
        if not len(left):
            break
    else:
        raise ValueError(
            f"{len(left)} draws found no cameras for {shots} images to enrol that leave {queries}"
            " to ask. Lower shots or queries."
        )
    key = generator.random(rows.shape)
    first = np.where(is_enrolled, key, 2.0)  # an enrolled image comes before any other
    last = np.where(is_enrolled | (rows < 0), 2.0, key)
    support, query = (
        np.take_along_axis(rows, keys.argsort(axis=1)[:, :count], axis=1)
        for keys, count in ((first, shots), (last, queries))
    )
    return support, query


def _enrolled_side(cameras: np.ndarray, shots: int, generator: np.random.Generator) -> np.ndarray:
    """Cameras in random order until they hold `shots` images: bool [T, M], False where no image."""
    num_people, num_cameras = len(cameras), int(cameras.max()) + 1
    exists = cameras >= 0
    key = generator.random((num_people, num_cameras))
    own = np.take_along_axis(key, cameras.clip(min=0), axis=1)
    own = np.where(exists, own, 2.0)  # images of a camera share its place in the order
    nth = np.sort(own, axis=1)[:, shots - 1]
    return exists & (own <= nth[:, None])


def accuracies(features: np.ndarray, episodes: Episodes) -> np.ndarray:
    """Share of the queries whose nearest prototype is their person's, f64 [E].

    A prototype is the mean of the enrolled unit features; nearest by Euclidean distance.

    Args:
        features: f32 [N, D], unit rows.

    Cost: E·W²·Q·D, in pieces. Source: Snell et al., Prototypical Networks, arXiv:1703.05175.
    """
    ranks = _ranks(features, episodes)
    return np.array([(r == 1).mean() for r in ranks])


def enrolled_map(features: np.ndarray, episodes: Episodes) -> np.ndarray:
    """mAP of the queries in a gallery of one prototype a person, f64 [E], 0 to 1.

    One entry of the gallery is right, so it is the mean of 1 / its rank.
    """
    return np.array([(1 / r).mean() for r in _ranks(features, episodes)])


def _ranks(features: np.ndarray, episodes: Episodes) -> Iterator[np.ndarray]:
    """For each episode the rank of the right prototype, i64 [W, Q], from 1; ties count against."""
    _, ways, shots = episodes.support.shape
    asked = ways * (episodes.query.shape[2] + shots)
    step = max(1, CHUNK // (asked * max(features.shape[1], ways)))
    for start in range(0, len(episodes), step):
        support, query = (
            episodes.support[start : start + step],
            episodes.query[start : start + step],
        )
        prototypes = features[support].mean(axis=2)  # [e, W, D]
        asked_for = features[query].reshape(len(query), -1, features.shape[1])  # [e, W·Q, D]
        nearness = 2 * asked_for @ prototypes.transpose(0, 2, 1)
        nearness -= np.square(prototypes).sum(axis=2)[:, None]  # minus a query's own constant
        nearness = nearness.reshape(*query.shape, ways)
        own = np.diagonal(nearness, axis1=1, axis2=3).transpose(0, 2, 1)  # [e, W, Q]
        yield from (nearness >= own[..., None]).sum(axis=3)


def linear_probe(features: np.ndarray, episodes: Episodes) -> np.ndarray:
    """Share of the queries that a linear classifier of the enrolled images tells, f64 [E].

    Logistic regression on unit features, by scikit-learn, regularised as it is by default.

    Args:
        features: f32 [N, D], unit rows.

    Cost: one regression of W classes on W·S images an episode; meant for a few large ones. Source:
    Tian et al., Rethinking Few-Shot Image Classification, arXiv:2003.11539.
    """
    from sklearn.linear_model import LogisticRegression

    found = []
    for support, query in zip(episodes.support, episodes.query, strict=True):
        classes = np.arange(len(support))
        model = LogisticRegression(max_iter=1000)
        with warnings.catch_warnings():  # one shot: as many classes as images, and no regression
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model.fit(features[support.ravel()], classes.repeat(support.shape[1]))
        told = model.predict(features[query.ravel()])
        found.append((told == classes.repeat(query.shape[1])).mean())
    return np.array(found)


def confidence(values: np.ndarray) -> tuple[float, float]:
    """(mean, half of its 95 % interval, 1.96·std / sqrt(n)); nan for the second of one value.

    It covers which episodes were drawn, neither the seed of a training nor the choice of people.

    >>> confidence(np.array([0.5, 0.7, 0.6, 0.6]))
    (0.6, 0.080016...)
    """
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(half)
