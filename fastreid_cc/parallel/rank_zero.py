"""Work by all processes for the first, and by the first for all; what goes wrong is raised on all.

`alone` stands for a single process: no other is waited for.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import TypeVar, cast

from .collectives import broadcast_object, collect_objects, gather_objects, rank, world_size

T = TypeVar("T")


def run_on_rank0(work: Callable[[], T], *, alone: bool = False) -> T:
    """`work()` of the first process, on every process. Its result is pickled.

    Raises:
        Exception: on every process, what `work` raised on the first.

    >>> run_on_rank0(lambda: "one process is the first")
    'one process is the first'
    """
    if alone or world_size() == 1:
        return work()
    value, error = _tried(work) if rank() == 0 else (None, None)
    value, error = broadcast_object((value, error))
    if error is not None:
        raise error
    return value


def gather_on_rank0(work: Callable[[], T], *, alone: bool = False) -> list[T]:
    """`work()` of every process in rank order, on the first; an empty list on the others.

    Raises:
        Exception: on every process, what `work` raised on the first that it failed on.

    >>> gather_on_rank0(lambda: "one process")
    ['one process']
    """
    if alone or world_size() == 1:
        return [work()]
    value = _raised_on_all(work)
    return _raised_on_all(lambda: collect_objects(value))


def _raised_on_all(work: Callable[[], T]) -> T:
    """`work()` of this process; what it raises on any process is raised on all, now."""
    value, error = _tried(work)
    for failed in gather_objects(error):
        if failed is not None:
            raise failed
    return cast(T, value)


def _tried(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """(result, None), or (None, error)."""
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001  raised again on every process
        return None, picklable(error)


def picklable(error: Exception) -> Exception:
    """The error, or one with the same text where it does not survive the way to other processes.

    >>> picklable(ValueError("as it is"))
    ValueError('as it is')
    """
    try:
        pickle.dumps(error)
        copy.copy(error)  # built anew from its arguments, as the receiver will
        return error
    except Exception:  # noqa: BLE001  an exception's constructor may do anything
        return RuntimeError(f"{type(error).__name__}: {error}")
