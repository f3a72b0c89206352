"""Runs a function in two processes that form a gloo group, with a hard time limit."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORLD = 2


def run_in_two(function: Callable[..., Any], *args: Any, timeout: float = 90.0) -> list[Any]:
    """[function(*args) on rank 0, on rank 1]; results travel pickled, so they must be picklable.

    `function` must be importable (top level of a module in tests/).

    Raises:
        RuntimeError: with the child's traceback if it failed.
        TimeoutError: after `timeout` seconds; the children are ended.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        children = [
            context.Process(target=_child, args=(rank, folder, function, args))
            for rank in range(WORLD)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(timeout)
        hung = [child for child in children if child.is_alive()]
        for child in hung:
            child.kill()
            child.join()
        outcomes = [_read(Path(folder) / f"{rank}.pickle") for rank in range(WORLD)]
        failures = [value for ok, value in outcomes if not ok and value]
        if failures:
            raise RuntimeError("\n".join(failures))
        if hung:
            raise TimeoutError(f"{function.__name__} did not end within {timeout} s.")
        return [value for _, value in outcomes]


def _read(path: Path) -> tuple[bool, Any]:
    return pickle.loads(path.read_bytes()) if path.exists() else (False, None)


def _child(rank: int, folder: str, function: Callable[..., Any], args: tuple) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        store = dist.FileStore(f"{folder}/store", WORLD)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
        outcome = (True, function(*args))
        dist.barrier()
        dist.destroy_process_group()
    except Exception:
        outcome = (False, traceback.format_exc())
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(outcome))
