"""Data loaders: errors in their thread, the model's device, collation."""

from __future__ import annotations

import collections.abc
import numbers
from typing import Any

import numpy as np
import torch
from fastreid.data import build as data_build
from fastreid.data import data_utils
from fastreid.engine import hooks

from ..patching import around, replace
from ..required.loader_without_cuda import close_loader


class HandsOverErrors(data_utils.BackgroundGenerator):
    """BackgroundGenerator that raises in the trainer what its thread met, and then ends."""

    error: BaseException | None = None
    has_ended = False

    def run(self) -> None:
        """Body of the thread."""
        try:
            super().run()
        except BaseException as error:
            self.error = error
            self.queue.put(None)

    def next(self) -> Any:
        """The next batch."""
        if not self.has_ended:
            batch = self.queue.get()
            if batch is not None:
                return batch
            self.has_ended = True
            if self.error is not None:
                raise self.error
        raise StopIteration


def hand_over_errors() -> None:
    """Raises in the trainer what goes wrong in a loader's thread.

    Breaks: an exception in the thread leaves the trainer blocked for ever, on CUDA. All versions.
    Does: `HandsOverErrors` in place of `BackgroundGenerator`. Test: test_compat_loader.py. May go:
    when fastreid does the same.
    """
    replace(data_utils, "BackgroundGenerator", HandsOverErrors)


@around(data_build, "build_reid_train_loader", "build_reid_test_loader")
def build_loaders_for_the_models_device(stock: Any, *args: Any, **kwargs: Any) -> Any:
    """Makes loaders follow MODEL.DEVICE, and test loaders DATALOADER.NUM_WORKERS.

    Breaks: batches go to CUDA whenever there is one; the test loader always starts four workers.
    Does: with MODEL.DEVICE=cpu, or without CUDA, batches stay on the CPU and the test loader has
    DATALOADER.NUM_WORKERS workers, at most four; on CUDA both stay as in stock. Test:
    test_compat_loader.py. May go: when fastreid's loaders take the device from the config.
    """
    built = stock(*args, **kwargs)
    cfg: Any = args[0] if args else kwargs.get("cfg")
    if not hasattr(cfg, "MODEL"):
        return built
    is_test = isinstance(built, tuple)  # with the number of queries
    loader = built[0] if is_test else built
    if loader.on_cpu or str(cfg.MODEL.DEVICE).startswith("cpu"):
        loader.on_cpu, loader.pin_memory = True, False
        if is_test:
            loader.num_workers = min(4, cfg.DATALOADER.NUM_WORKERS)
    return built


def collate_numpy_values() -> None:
    """Collates numpy numbers, arrays and lists.

    Breaks: `fast_batch_collator` returns None for whatever it does not know, np.int64 labels among
    it. Does: numpy integers become int64, reals float64, arrays are stacked, anything else stays a
    list. What stock collates stays the same. Test: test_compat_loader.py. May go: when fastreid's
    collator does not return None.
    """
    replace(data_build, "fast_batch_collator", _collate)


def _collate(batch: list[Any]) -> Any:
    first = batch[0]
    if isinstance(first, torch.Tensor):
        return torch.stack(batch)
    if isinstance(first, collections.abc.Mapping):
        return {key: _collate([item[key] for item in batch]) for key in first}
    if isinstance(first, np.ndarray):
        return torch.from_numpy(np.stack(batch))
    if isinstance(first, (bool, np.bool_)):
        return torch.tensor(batch, dtype=torch.bool)
    if isinstance(first, numbers.Integral):
        return torch.tensor([int(value) for value in batch])
    if isinstance(first, numbers.Real):
        return torch.tensor([float(value) for value in batch], dtype=torch.float64)
    return batch


@around(hooks.PreciseBN, "update_stats")
def close_precise_bn_loader(stock: Any, hook: Any) -> None:
    """Closes the loader of `hooks.PreciseBN` once the statistics are made.

    Breaks: the loader's thread (and workers, if any) outlive the hook. All versions. Does: closes
    it. Test: test_compat_loader.py. May go: when fastreid closes it.
    """
    try:
        stock(hook)
    finally:
        if not hook._disabled:
            hook._data_iter = None
            close_loader(hook._data_loader)
