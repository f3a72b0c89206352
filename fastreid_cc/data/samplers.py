"""Batches of P clusters x K images, as the clustering papers draw them, from an own generator.

The rules are those of Cluster Contrast and SpCL (Dai et al., arXiv:2103.11568; Ge et al.,
arXiv:2006.02713): clusters in random order; one random image of the cluster, then K-1 more from
*other cameras* than that image's, without repetition if at least K are there, else with; a cluster
seen by one camera gives its other images; a cluster of one image gives that image once. Where
tracklets are told, which the papers do not know, the K-1 come from as many of them as possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np


def draw_images(
    members: np.ndarray,
    cameras: np.ndarray | None,
    num_instances: int,
    generator: np.random.Generator,
    tracklets: np.ndarray | None = None,
) -> np.ndarray:
    """Draws up to K images of one cluster, the anchor first.

    Args:
        members: i64 [m], dataset rows of the cluster.
        cameras: i64 [m], their cameras; None leaves cameras out of it.
        num_instances: K.
        generator: source of the draws.
        tracklets: i64 [m], their tracklets: one image of each comes before a second of any, the
            anchor's counted; a repetition only where all were drawn. None leaves them out of it.

    Returns:
        i64 [K], or [1] for a cluster of one image.
    """
    anchor = int(generator.integers(len(members)))
    pool = np.flatnonzero(np.arange(len(members)) != anchor)
    if cameras is not None:
        others = np.flatnonzero(cameras != cameras[anchor])
        pool = others if len(others) else pool
    if not len(pool):
        return members[[anchor]]
    if tracklets is not None:
        pool = generator.permutation(pool)
        own = tracklets[pool]
        by_tracklet = np.argsort(own, kind="stable")
        _, first, of = np.unique(own[by_tracklet], return_index=True, return_inverse=True)
        turn = np.empty(len(pool), np.int64)  # how many of its tracklet come before it
        turn[by_tracklet] = np.arange(len(pool)) - first[of]
        turn += own == tracklets[anchor]
        rest = np.resize(pool[np.argsort(turn, kind="stable")], num_instances - 1)
        return members[np.concatenate(([anchor], rest))]
    rest = generator.choice(pool, num_instances - 1, replace=len(pool) < num_instances)
    return members[np.concatenate(([anchor], rest))]


class ClusterSampler:
    """Yields this process's slice of every batch of an epoch.

    Batches are cut from a pass over all clusters; a remainder that fills no batch is dropped and a
    new pass begins, so no batch holds a cluster twice. All processes draw the same batches and take
    contiguous slices, so P x K over two processes is the P x K of one.

    Args:
        labels: i64 [N], cluster of each image, -1 = not trained on.
        cameras: i64 [N] or None.
        num_instances: K.
        batch_size: images per batch over all processes; P = batch_size / K.
        num_batches: batches per epoch.
        seed: with the epoch, fixes every draw.
        rank, world_size: this process and their number.
        tracklets: i64 [N] or None.

    Raises:
        ValueError: if there are fewer clusters than fill a batch.
    """

    def __init__(
        self,
        labels: np.ndarray,
        cameras: np.ndarray | None = None,
        *,
        num_instances: int,
        batch_size: int,
        num_batches: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        tracklets: np.ndarray | None = None,
    ) -> None:
        order = np.argsort(labels, kind="stable")
        order = order[labels[order] >= 0]
        starts = np.unique(labels[order], return_index=True)[1]
        self.members = np.split(order, starts[1:]) if len(order) else []
        self.cameras = [None if cameras is None else cameras[m] for m in self.members]
        self.tracklets = [None if tracklets is None else tracklets[m] for m in self.members]
        self.num_instances, self.batch_size = num_instances, batch_size
        self.num_batches, self.seed = num_batches, seed
        self.rank, self.world_size = rank, world_size
        images = sum(num_instances if len(m) > 1 else 1 for m in self.members)
        if images < batch_size:
            raise ValueError(
                f"{len(self.members)} clusters fill {images} of the {batch_size} places of a batch"
                f" (SOLVER.IMS_PER_BATCH={batch_size}, DATALOADER.NUM_INSTANCE={num_instances})."
                " Raise eps, lower IMS_PER_BATCH, or set CC.COLLAPSE.SHRINK_P True."
            )

    def one_pass(self, generator: np.random.Generator) -> np.ndarray:
        """i64: all clusters once in random order, K images each."""
        drawn = [
            draw_images(
                self.members[c],
                self.cameras[c],
                self.num_instances,
                generator,
                self.tracklets[c],
            )
            for c in generator.permutation(len(self.members))
        ]
        return np.concatenate(drawn)

    def batches(self, epoch: int) -> Iterator[np.ndarray]:
        """The global batches of an epoch, each i64 [batch_size]."""
        generator = np.random.default_rng((self.seed, epoch))
        left = self.num_batches
        while left:
            stream = self.one_pass(generator)
            full = min(len(stream) // self.batch_size, left)
            yield from stream[: full * self.batch_size].reshape(full, self.batch_size)
            left -= full

    def local_batches(self, epoch: int) -> list[np.ndarray]:
        """This process's slices of the epoch's batches, each i64 [batch_size / world_size]."""
        share = self.batch_size // self.world_size
        cut = slice(self.rank * share, (self.rank + 1) * share)
        return [batch[cut] for batch in self.batches(epoch)]


@dataclass(frozen=True)
class ViewSampler:
    """Batches for instance discrimination: each drawn image `views` times in a row, no labels used.

    Args:
        num_images: N.
        views: augmented copies of an image in a batch.
        batch_size, num_batches, seed, rank, world_size: as in `ClusterSampler`.
    """

    num_images: int
    _: KW_ONLY
    views: int
    batch_size: int
    num_batches: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def local_batches(self, epoch: int) -> list[np.ndarray]:
        """This process's slices of the epoch's batches, each i64 [batch_size / world_size]."""
        generator = np.random.default_rng((self.seed, epoch))
        per_batch = self.batch_size // self.views
        needed = per_batch * self.num_batches
        images = in_passes(self.num_images, needed, generator).reshape(-1, per_batch)
        share = per_batch // self.world_size
        images = images[:, self.rank * share : (self.rank + 1) * share]
        return [np.repeat(batch, self.views) for batch in images]


def in_passes(num_images: int, needed: int, generator: np.random.Generator) -> np.ndarray:
    """i64 [needed]: one random order of 0..num_images-1 after another, cut to length."""
    passes = [generator.permutation(num_images) for _ in range(-(-needed // num_images))]
    return np.concatenate(passes)[:needed]


def extra_batches(
    rows: np.ndarray,
    *,
    per_batch: int,
    num_batches: int,
    entropy: tuple[int, ...],
    rank: int = 0,
    world_size: int = 1,
) -> list[np.ndarray]:
    """Batches of images that join another sampler's batches, e.g. outliers: this process's slices.

    All `rows` come once in random order, then all again, and so on.

    Args:
        rows: i64 [M], dataset rows, at least one.
        per_batch: images of a batch over all processes, a multiple of their number.
        num_batches: batches.
        entropy: seed and epoch.
        rank, world_size: this process and their number.
    """
    generator = np.random.default_rng((*entropy, 0, len(rows)))
    drawn = rows[in_passes(len(rows), per_batch * num_batches, generator)]
    parts = drawn.reshape(num_batches, world_size, per_batch // world_size)
    return list(parts[:, rank])


def augmentation_slots(
    sizes: Sequence[int], num_batches: int, rank: int, world_size: int
) -> list[np.ndarray]:
    """Indices in the epoch that seed the augmentation of the images of this process's batches.

    The same image has the same index for any number of processes: a batch is numbered part after
    part, and each process takes its slice of every part.

    Args:
        sizes: images of each part of a batch on one process.
        num_batches: batches.
        rank, world_size: this process and their number.
    Returns:
        i64 [sum of sizes] for each batch.
    """
    first = np.cumsum([0, *sizes]) * world_size
    within = [start + rank * n + np.arange(n) for start, n in zip(first[:-1], sizes, strict=True)]
    batch = np.concatenate(within)
    return [n * int(first[-1]) + batch for n in range(num_batches)]
