"""Identity samplers: mixed identities, endless loops, weighted sets."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from fastreid.data import common
from fastreid.data.samplers import triplet_sampler

from fastreid_cc.errors import BadConfig

from ..patching import assign, wrap


def sort_mixed_identities() -> None:
    """Sorts identities that are text in one data set and numbers in another.

    Breaks: `sorted` in CommDataset and the samplers, TypeError. All versions. Does: sorts by type,
    then value; lists of one type sort as before. Test: test_compat_datasets.py. May go: when
    fastreid's data sets agree on a type.
    """
    for module in (common, triplet_sampler):
        assign(module, "sorted", _sorted)


def _sorted(values: Iterable[Any]) -> list[Any]:
    values = list(values)
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=lambda v: (type(v).__name__, v))


def refuse_too_few_identities() -> None:
    """Refuses an identity sampler that can never fill a batch.

    Breaks: with fewer identities than SOLVER.IMS_PER_BATCH / DATALOADER.NUM_INSTANCE, or when that
    does not divide, `BalancedIdentitySampler` and `NaiveIdentitySampler` loop for ever. All
    versions. Does: ValueError when iteration starts. Test: test_compat_datasets.py. May go: when
    fastreid checks.
    """
    for cls in (triplet_sampler.BalancedIdentitySampler, triplet_sampler.NaiveIdentitySampler):
        wrap(cls, "__iter__", _iterate_if_possible)


def _iterate_if_possible(stock: Any, sampler: Any) -> Iterator[int]:
    check_identities(sampler)
    return iter(stock(sampler))


def check_identities(sampler: Any) -> None:
    """Raises ValueError, naming the config keys, if the sampler could never fill one batch."""
    size, instances, ranks = sampler.batch_size, sampler.num_instances, sampler._world_size
    counts = np.array([len(sampler.pid_index[pid]) for pid in sampler.pids])
    found = (
        f"{type(sampler).__name__}: {len(counts)} identities, SOLVER.IMS_PER_BATCH={size} over "
        f"{ranks} process(es), DATALOADER.NUM_INSTANCE={instances}"
    )
    if size // ranks % instances or size < instances * ranks:
        raise BadConfig(
            f"{found}: each process's {size // ranks} images must be a multiple of NUM_INSTANCE. "
            f"Set IMS_PER_BATCH to a multiple of {instances * ranks}."
        )
    per_rank = sampler.num_pids_per_batch
    turns = np.ones(len(counts))
    if isinstance(sampler, triplet_sampler.NaiveIdentitySampler):  # an identity once per process
        turns = np.clip(counts // instances, 1, ranks)
    if len(counts) < per_rank or turns.sum() < per_rank * ranks:
        raise BadConfig(
            f"{found}: a batch needs P={per_rank * ranks} identities (IMS_PER_BATCH / NUM_INSTANCE)"
            ", so no batch can be filled. Lower IMS_PER_BATCH or raise NUM_INSTANCE."
        )


def sample_weighted_sets() -> None:
    """Makes `SetReWeightSampler` fill its batches.

    Breaks: it looks cameras up by number where data sets name them by text (an empty choice), and
    its constructor asks for more images than one round gives, so a batch is never full. All
    versions. Does: rounds of `SET_WEIGHT[c]` identities of the c-th camera (sorted), NUM_INSTANCE
    images each, until the batch is full. Test: test_compat_datasets.py. May go: when fastreid
    mends it.
    """
    assign(triplet_sampler.SetReWeightSampler, "_infinite_indices", _weighted_indices)


def _weighted_indices(sampler: Any) -> Iterator[int]:
    cameras = _sorted(sampler.cam_pid)
    if len(cameras) != len(sampler.set_weight):
        raise BadConfig(
            f"DATALOADER.SET_WEIGHT={tuple(sampler.set_weight)} needs one number for each of the "
            f"{len(cameras)} cameras {cameras}."
        )
    np.random.seed(sampler._seed)
    while True:
        batch: list[int] = []
        while len(batch) < sampler.batch_size:
            for camera, number in zip(cameras, sampler.set_weight, strict=True):
                for pid in _choose_identities(sampler.cam_pid[camera], number, camera):
                    images, size = sampler.pid_index[pid], sampler.num_instances
                    batch += np.random.choice(images, size, replace=len(images) <= size).tolist()
        np.random.shuffle(batch)
        yield from triplet_sampler.reorder_index(batch, sampler._world_size)


def _choose_identities(images: list[Any], number: int, camera: Any) -> list[Any]:
    """`number` identities of one camera, weighted by their images there."""
    counts = collections.Counter(images)
    if len(counts) < number:
        raise BadConfig(
            f"DATALOADER.SET_WEIGHT asks for {number} identities of camera {camera!r}, which has "
            f"{len(counts)}."
        )
    weights = np.fromiter(counts.values(), float)
    chosen = np.random.choice(len(counts), size=number, replace=False, p=weights / weights.sum())
    return [list(counts)[i] for i in chosen]
