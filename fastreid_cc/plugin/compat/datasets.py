"""Items, samplers and images: mixed identities, endless loops, which file failed."""

from __future__ import annotations

import builtins
import collections
import functools
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastreid_cc.errors import printable

from .imports import fastreid_module
from .patching import assign


def _sorted(values: Iterable[Any]) -> list[Any]:
    values = list(values)
    try:
        return builtins.sorted(values)
    except TypeError:
        return builtins.sorted(values, key=lambda v: (type(v).__name__, v))


def sort_mixed_identities() -> None:
    """Identities that are text in one data set and numbers in another.

    Breaks: `sorted` in CommDataset and the samplers, TypeError. All versions. Does: sorts by type,
    then value; lists of one type sort as before. Test: test_compat_datasets.py. May go: when
    fastreid's data sets agree on a type.
    """
    for name in ("data.common", "data.samplers.triplet_sampler"):
        assign(fastreid_module(name), "sorted", _sorted)


def name_the_image_that_failed() -> None:
    """Exceptions while an image is read or transformed.

    Breaks: "image file is truncated" and the like name no file. All versions. Does: the same
    exception class with the path added, also out of a worker process. Test: test_compat_loader.py.
    May go: when fastreid adds the path.
    """
    dataset = fastreid_module("data.common").CommDataset
    stock = dataset.__getitem__

    @functools.wraps(stock)
    def __getitem__(self: Any, index: int) -> Any:
        try:
            return stock(self, index)
        except Exception as error:
            path = str(self.img_items[index][0]) if index < len(self.img_items) else ""
            if not path or path in str(error):
                raise
            raise _with_path(error, path) from error

    assign(dataset, "__getitem__", __getitem__)


def never_start_ghostscript() -> None:
    """Pillow, when an image file holds PostScript, whatever its name.

    Breaks: to draw it, Pillow starts the program `gs` on the file, and PostScript is a programming
    language. All versions. Does: such a file is an image that cannot be read. Test:
    test_security.py. May go: never.
    """
    assign(importlib.import_module("PIL.EpsImagePlugin"), "gs_binary", False)


def _with_path(error: Exception, path: str) -> Exception:
    message = f"{error} (image: {printable(path)})"
    try:
        return type(error)(message)
    except TypeError:
        return RuntimeError(f"{type(error).__name__}: {message}")


def refuse_too_few_identities() -> None:
    """Identity samplers that can never fill a batch.

    Breaks: with fewer identities than SOLVER.IMS_PER_BATCH / DATALOADER.NUM_INSTANCE, or when that
    does not divide, `BalancedIdentitySampler` and `NaiveIdentitySampler` loop for ever. All
    versions. Does: ValueError when iteration starts. Test: test_compat_datasets.py. May go: when
    fastreid checks.
    """
    module = fastreid_module("data.samplers.triplet_sampler")
    for cls in (module.BalancedIdentitySampler, module.NaiveIdentitySampler):
        assign(cls, "__iter__", _checked(cls.__iter__))


def _checked(stock: Any) -> Any:
    @functools.wraps(stock)
    def __iter__(self: Any) -> Iterator[int]:
        check_identities(self)
        return stock(self)

    return __iter__


def check_identities(sampler: Any) -> None:
    """Raises ValueError, naming the config keys, if the sampler could never fill one batch."""
    size, instances, ranks = sampler.batch_size, sampler.num_instances, sampler._world_size
    counts = np.array([len(sampler.pid_index[pid]) for pid in sampler.pids])
    found = (
        f"{type(sampler).__name__}: {len(counts)} identities, SOLVER.IMS_PER_BATCH={size} over "
        f"{ranks} process(es), DATALOADER.NUM_INSTANCE={instances}"
    )
    if size // ranks % instances or size < instances * ranks:
        raise ValueError(
            f"{found}: each process's {size // ranks} images must be a multiple of NUM_INSTANCE. "
            f"Set IMS_PER_BATCH to a multiple of {instances * ranks}."
        )
    per_rank = sampler.num_pids_per_batch
    if type(sampler).__name__ == "NaiveIdentitySampler":  # may use an identity once per process
        turns = np.minimum(np.maximum(counts // instances, 1), ranks).sum()
        enough = len(counts) >= per_rank and turns >= per_rank * ranks
    else:
        enough = len(counts) >= per_rank * ranks
    if not enough:
        raise ValueError(
            f"{found}: a batch needs P={per_rank * ranks} identities (IMS_PER_BATCH / NUM_INSTANCE)"
            ", so no batch can be filled. Lower IMS_PER_BATCH or raise NUM_INSTANCE."
        )


def sample_weighted_sets() -> None:
    """`SetReWeightSampler`.

    Breaks: it looks cameras up by number where data sets name them by text (an empty choice), and
    its constructor asks for more images than one round gives, so a batch is never full. All
    versions. Does: rounds of `SET_WEIGHT[c]` identities of the c-th camera (sorted), NUM_INSTANCE
    images each, until the batch is full. Test: test_compat_datasets.py. May go: when fastreid
    mends it.
    """
    sampler = fastreid_module("data.samplers.triplet_sampler").SetReWeightSampler

    def _infinite_indices(self: Any) -> Iterator[int]:
        reorder = fastreid_module("data.samplers.triplet_sampler").reorder_index
        cameras = _sorted(self.cam_pid)
        if len(cameras) != len(self.set_weight):
            raise ValueError(
                f"DATALOADER.SET_WEIGHT={tuple(self.set_weight)} needs one number for each of the "
                f"{len(cameras)} cameras {cameras}."
            )
        np.random.seed(self._seed)
        while True:
            batch: list[int] = []
            while len(batch) < self.batch_size:
                for camera, number in zip(cameras, self.set_weight, strict=True):
                    for pid in _choose_identities(self.cam_pid[camera], number, camera):
                        images = self.pid_index[pid]
                        again = len(images) <= self.num_instances
                        batch += np.random.choice(
                            images, self.num_instances, replace=again
                        ).tolist()
            np.random.shuffle(batch)
            yield from reorder(batch, self._world_size)

    assign(sampler, "_infinite_indices", _infinite_indices)


def _choose_identities(images: list[Any], number: int, camera: Any) -> list[Any]:
    """`number` identities of one camera, weighted by their images there."""
    counts = collections.Counter(images)
    pids = list(counts)
    if len(pids) < number:
        raise ValueError(
            f"DATALOADER.SET_WEIGHT asks for {number} identities of camera {camera!r}, which has "
            f"{len(pids)}."
        )
    weights = np.array([counts[pid] for pid in pids], dtype=float)
    chosen = np.random.choice(len(pids), size=number, replace=False, p=weights / weights.sum())
    return [pids[i] for i in chosen]
