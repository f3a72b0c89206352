"""Data loaders on a machine without CUDA, and the end of a loader's thread and processes."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

import torch
from fastreid.data import data_utils
from torch.utils.data import DataLoader

from ..patching import replace


def close_loader(loader: Any) -> None:
    """Ends the threads and worker processes of a loader. Safe on any object, and twice.

    A closed `DataLoaderX` starts anew when it is iterated or asked for a batch again.
    """
    close = getattr(loader, "close", None)
    if callable(close):
        close()
    elif isinstance(loader, DataLoader):
        _stop_workers(loader._iterator)


def swap_loader(trainer: Any, loader: Any) -> None:
    """Gives a trainer another training loader and retires the one it had.

    Args:
        trainer: a DefaultTrainer (or its inner SimpleTrainer); its `data_loader` and
            `_data_loader_iter` are replaced.
        loader: any iterable of batches.
    """
    inner = getattr(trainer, "_trainer", trainer)
    if inner.data_loader is not loader:
        close_loader(inner.data_loader)
    inner.data_loader = loader
    inner._data_loader_iter = iter(loader)


def _stop_workers(iterator: Any) -> None:
    stop = getattr(iterator, "_shutdown_workers", None)
    if callable(stop):
        stop()


def _end_thread(thread: Any) -> None:
    """Ends a BackgroundGenerator, which may wait for room in its queue, and its workers."""
    if thread is not threading.current_thread() and thread.is_alive():
        thread.exit_event.set()
        with contextlib.suppress(Exception):  # nobody asked for the batch that failed
            for _ in thread:
                pass
        thread.join(timeout=60)
    _stop_workers(thread.generator)


class AnyDeviceLoader(data_utils.DataLoaderX):
    """DataLoaderX that is a plain torch loader on a CPU, and that can be closed and started again.

    Attributes:
        on_cpu: batches stay on the CPU; no thread and no stream.
    """

    iter: Any
    stream: Any
    _iterator: Any

    def __init__(self, local_rank: int, **kwargs: Any) -> None:
        self.on_cpu = not torch.cuda.is_available()
        if self.on_cpu:
            kwargs["pin_memory"] = False
        DataLoader.__init__(self, **kwargs)
        self.local_rank = local_rank
        self.stream = self.iter = self.batch = None

    def __iter__(self) -> Any:
        self.close()
        self._owner = os.getpid()
        self.iter = DataLoader.__iter__(self)
        if not self.on_cpu:
            self.stream = self.stream or torch.cuda.Stream(self.local_rank)
            self.iter = data_utils.BackgroundGenerator(self.iter, self.local_rank)
            self.preload()
        return self

    def __next__(self) -> Any:
        if self.iter is None:  # never started, or closed
            iter(self)
        if not self.on_cpu:
            return super().__next__()
        try:
            return next(self.iter)
        except StopIteration:
            _stop_workers(self.iter)
            self.iter = iter(())
            raise
        except BaseException:  # the other workers must not wait for the garbage collector
            self.close()
            raise

    def close(self) -> None:
        """Ends thread and worker processes."""
        if getattr(self, "_owner", None) != os.getpid():
            return  # a forked copy: the threads and processes belong to the parent
        running, self.iter, self.batch = self.iter, None, None
        (_end_thread if isinstance(running, threading.Thread) else _stop_workers)(running)
        _stop_workers(self._iterator)  # persistent workers
        self._iterator = None

    shutdown = _shutdown_background_thread = close

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


def load_without_cuda() -> None:
    """Loads without CUDA, and ends what a loader started.

    Breaks: `DataLoaderX` opens a CUDA stream, so nothing loads on a CPU; its thread and workers
    outlive it, so that training with a new loader in each epoch piles them up. All versions. Does:
    `AnyDeviceLoader` in its place: on a CPU a plain torch loader (its workers prefetch already; no
    pinned memory); on CUDA the stock thread and stream, with `close()` to end thread and workers.
    Test: test_compat_loader.py. May go: when fastreid does the same.
    """
    replace(data_utils, "DataLoaderX", AnyDeviceLoader)
