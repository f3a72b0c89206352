"""Compiled loops for the label engine: how they are compiled and how they share the cores.

Kernels are single-threaded numba functions that release the GIL; `run_chunks` gives each thread
large pieces of the work. There is no barrier inside a stage and no second OpenMP runtime, so a busy
machine slows the engine down in proportion and no more. A piece writes only its own rows, so the
bytes do not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

import numba
import numpy as np
import torch

from ..structures import Progress

R = TypeVar("R")


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiles on the first call, without the GIL, and keeps the result on disk where possible.

    numba looks for a writable place itself (beside the source, the user's cache, NUMBA_CACHE_DIR);
    where it finds none the kernel is compiled anew in each process.

    Args:
        function: a function of numbers and arrays, not of objects.
        options: passed to `numba.njit`.

    >>> @jit
    ... def total(values):
    ...     found = 0.0
    ...     for value in values:
    ...         found += value
    ...     return found
    >>> float(total(np.ones(3)))
    3.0
    """
    options = {"nogil": True, "error_model": "numpy", **options}
    with contextlib.suppress(RuntimeError):
        return numba.njit(function, cache=True, **options)
    return numba.njit(function, **options)


#: `jit` that may reorder a sum at compile time, so that it is done in vector registers. The order
#: is fixed in the machine code: a call gives the same bytes each time on one machine.
jit_reassociating = functools.partial(jit, fastmath={"reassoc", "contract", "nsz"})


def num_threads() -> int:
    """Threads the engine uses: torch's number, at most the cores this process may run on.

    >>> num_threads() <= torch.get_num_threads()
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(torch.get_num_threads(), cores or 1))


@contextlib.contextmanager
def single_threaded_workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of `count` threads that run torch operators on one thread each.

    >>> with single_threaded_workers(2) as pool:
    ...     pool.submit(torch.get_num_threads).result()
    1
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)  # the initializer also sets the default of later threads


def run_tasks(
    tasks: Sequence[Callable[[], R]],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    stage: str = "",
) -> list[R]:
    """Runs the tasks on the engine's threads; the results in the order of the tasks.

    Args:
        tasks: functions without arguments that release the GIL for most of their time.
        threads: by default `num_threads`.
        progress: called with (stage, tasks done, tasks in all).
        stage: the name of the work, for `progress`.
    Raises:
        BaseException: the first error of a task, or Ctrl-C; what has not started is cancelled.

    >>> run_tasks([lambda: 1, lambda: 2])
    [1, 2]
    """
    threads = min(threads or num_threads(), len(tasks))
    results: list[Any] = [None] * len(tasks)
    if threads <= 1:
        for at, task in enumerate(tasks):
            results[at] = task()
            if progress:
                progress(stage, at + 1, len(tasks))
        return results
    with single_threaded_workers(threads) as pool:
        futures = {pool.submit(task): at for at, task in enumerate(tasks)}
        for done, future in enumerate(as_completed(futures), 1):
            results[futures[future]] = future.result()
            if progress:
                progress(stage, done, len(tasks))
    return results


def split_rows(rows: int, pieces: int) -> list[range]:
    """At most `pieces` ranges of nearly equal length that cover 0..rows.

    >>> split_rows(10, 3)
    [range(0, 3), range(3, 6), range(6, 10)]
    """
    edges = np.linspace(0, rows, min(max(pieces, 1), max(rows, 1)) + 1).astype(np.int64)
    return [range(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def run_chunks(
    kernel: Callable[..., R],
    rows: int,
    *arguments: Any,
    rows_per_chunk: int = 2048,
    progress: Progress | None = None,
    stage: str = "",
) -> list[R]:
    """`kernel(start, stop, *arguments)` over all rows, in large pieces.

    The pieces depend on `rows` alone, not on the number of threads, and results come in row order.

    >>> run_chunks(lambda start, stop, values: values[start:stop].sum().item(), 4, np.arange(4))
    [6]
    """
    pieces = split_rows(rows, -(-rows // max(rows_per_chunk, rows // 64)))
    tasks = [functools.partial(kernel, p.start, p.stop, *arguments) for p in pieces]
    return run_tasks(tasks, progress=progress, stage=stage)


@jit_reassociating
def dot(x: np.ndarray, y: np.ndarray) -> float:
    """Inner product of two f32 rows, summed in float64 in a fixed order.

    >>> dot(np.float32([1, 2]), np.float32([3, 4]))
    11.0
    """
    total = 0.0
    for d in range(x.shape[0]):
        total += np.float64(x[d]) * np.float64(y[d])
    return total


@jit
def cosine(x: np.ndarray, y: np.ndarray) -> np.float32:
    """The engine's similarity of two unit rows: the float64 sum, rounded once, in [-1, 1].

    >>> round(float(cosine(np.float32([1, 0]), np.float32([0.6, 0.8]))), 6)
    0.6
    """
    value = np.float32(dot(x, y))
    return min(max(value, np.float32(-1)), np.float32(1))
