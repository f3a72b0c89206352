"""Data loaders: CPU, worker exceptions, shutting down, collation."""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import numbers
import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from .imports import fastreid_module
from .patching import assign, replace

_building = threading.local()


def close_loader(loader: Any) -> None:
    """Ends the threads and worker processes of a loader. Safe on any object, and twice.

    A closed `DataLoaderX` starts anew when it is iterated or asked for a batch again.
    """
    if loader is None:
        return
    close = getattr(loader, "close", None)
    if callable(close):
        close()
    elif isinstance(loader, DataLoader):
        _stop_workers(getattr(loader, "_iterator", None))


def swap_loader(trainer: Any, loader: Any) -> None:
    """Gives a trainer another training loader and retires the one it had.

    Args:
        trainer: a DefaultTrainer (or its inner SimpleTrainer); its `data_loader` and
            `_data_loader_iter` are replaced.
        loader: any iterable of batches.
    """
    inner = getattr(trainer, "_trainer", trainer)
    old = inner.data_loader
    if old is not loader:
        close_loader(old)
    inner.data_loader = loader
    inner._data_loader_iter = iter(loader)


def _stop_workers(iterator: Any) -> None:
    stop = getattr(iterator, "_shutdown_workers", None)
    if callable(stop):
        stop()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


@contextlib.contextmanager
def _building_for(cfg: Any, workers: int | None) -> Iterator[None]:
    before = getattr(_building, "value", (None, None))
    cpu = cfg is not None and str(cfg.MODEL.DEVICE).startswith("cpu")
    _building.value = (cpu, workers)
    try:
        yield
    finally:
        _building.value = before


def _cfg_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    candidate = args[0] if args else kwargs.get("cfg")
    return candidate if hasattr(candidate, "MODEL") else None


def _loader_init(self: Any, local_rank: int, **kwargs: Any) -> None:
    cpu, workers = getattr(_building, "value", (None, None))
    self.on_cpu = bool(cpu) or not torch.cuda.is_available()
    if self.on_cpu:
        kwargs["pin_memory"] = False
        if workers is not None:
            kwargs["num_workers"] = workers
    DataLoader.__init__(self, **kwargs)
    self.local_rank = local_rank
    self.stream = None if self.on_cpu else torch.cuda.Stream(local_rank)
    self.iter = self.batch = None


def _loader_iter(self: Any) -> Any:
    self.close()
    self._owner = os.getpid()
    self.iter = DataLoader.__iter__(self)
    if not self.on_cpu:
        self.iter = fastreid_module("data.data_utils").BackgroundGenerator(
            self.iter, self.local_rank
        )
        self.preload()
    return self


def _loader_next(self: Any) -> Any:
    if self.iter is None:  # never started, or closed
        iter(self)
    if self.on_cpu:
        try:
            return next(self.iter)
        except StopIteration:
            _stop_workers(self.iter)
            self.iter = iter(())
            raise
        except BaseException:  # the other workers must not wait for the garbage collector
            self.close()
            raise
    torch.cuda.current_stream().wait_stream(self.stream)
    batch = self.batch
    if batch is None:
        raise StopIteration
    self.preload()
    return batch


def _loader_close(self: Any) -> None:
    if getattr(self, "_owner", None) != os.getpid():
        return  # a forked copy: the threads and processes belong to the parent
    running: Any = getattr(self, "iter", None)
    self.iter = self.batch = None
    if hasattr(running, "stop"):
        running.stop()
    else:
        _stop_workers(running)
    _stop_workers(getattr(self, "_iterator", None))  # persistent workers
    self._iterator = None


def _loader_del(self: Any) -> None:
    with contextlib.suppress(Exception):
        self.close()


def _thread_run(self: Any) -> None:
    last: Any = None
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(self.local_rank)
        for item in self.generator:
            if not self._hand_over(item):
                return
    except BaseException as error:
        last = _Failure(error)
    self._hand_over(last)


def _thread_hand_over(self: Any, item: Any) -> bool:
    while not self.exit_event.is_set():
        try:
            self.queue.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _thread_next(self: Any) -> Any:
    if getattr(self, "_ended", False):
        raise StopIteration
    item = self.queue.get()
    if item is None or isinstance(item, _Failure):
        self._ended = True
        if item is None:
            raise StopIteration
        raise item.error
    return item


def _thread_stop(self: Any) -> None:
    self.exit_event.set()
    if self.is_alive() and threading.current_thread() is not self:
        self.join(timeout=60)
    _stop_workers(self.generator)
    self._ended = True
    with contextlib.suppress(queue.Empty):
        while True:
            self.queue.get_nowait()


def load_without_cuda_and_never_hang() -> None:
    """`DataLoaderX` and its background thread.

    Breaks: it opens a CUDA stream, so nothing loads on a CPU, and with MODEL.DEVICE=cpu on a
    machine with CUDA batches land on the wrong device; an exception in its thread leaves the
    trainer blocked for ever; thread and workers outlive the loader. All versions. Does: on a CPU
    the loader is a plain torch loader (its workers prefetch already; no pinned memory); on CUDA the
    stock thread and stream, with exceptions handed over and `close()` to end thread and workers.
    Test: test_compat_loader.py. May go: when fastreid does the same.
    """
    module = fastreid_module("data.data_utils")
    loader, thread = module.DataLoaderX, module.BackgroundGenerator
    for name, value in {
        "__init__": _loader_init,
        "__iter__": _loader_iter,
        "__next__": _loader_next,
        "__del__": _loader_del,
        "close": _loader_close,
        "shutdown": _loader_close,
        "_shutdown_background_thread": _loader_close,
    }.items():
        assign(loader, name, value)
    for name, value in {
        "run": _thread_run,
        "next": _thread_next,
        "stop": _thread_stop,
        "_hand_over": _thread_hand_over,
    }.items():
        assign(thread, name, value)


def build_loaders_for_the_models_device() -> None:
    """Loaders built from a config follow MODEL.DEVICE; test loaders DATALOADER.NUM_WORKERS too.

    Breaks: batches go to CUDA whenever there is one; the test loader always starts four workers.
    Does: with MODEL.DEVICE=cpu, or without CUDA, batches stay on the CPU and the test loader has
    DATALOADER.NUM_WORKERS workers, at most four; on CUDA both stay as in stock. Test:
    test_compat_loader.py. May go: when fastreid's loaders take the device from the config.
    """
    module = fastreid_module("data.build")
    for name in ("build_reid_train_loader", "build_reid_test_loader"):
        replace(module, name, _for_device(getattr(module, name), is_test="test" in name))


def _for_device(stock: Any, *, is_test: bool) -> Any:
    @functools.wraps(stock)
    def build(*args: Any, **kwargs: Any) -> Any:
        cfg = _cfg_of(args, kwargs)
        workers = min(4, cfg.DATALOADER.NUM_WORKERS) if cfg is not None and is_test else None
        with _building_for(cfg, workers):
            return stock(*args, **kwargs)

    return build


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


def collate_numpy_values() -> None:
    """`fast_batch_collator` on numpy numbers, arrays and lists.

    Breaks: it returns None for whatever it does not know, np.int64 labels among it. Does: numpy
    integers become int64, reals float64, arrays are stacked, anything else stays a list. What stock
    collates stays the same. Test: test_compat_loader.py. May go: when fastreid's collator does not
    return None.
    """
    replace(fastreid_module("data.build"), "fast_batch_collator", _collate)
