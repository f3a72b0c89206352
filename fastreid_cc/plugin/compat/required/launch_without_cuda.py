"""Several processes on a machine without CUDA."""

from __future__ import annotations

import importlib
import multiprocessing
from typing import Any

from ..patching import assign
from ..process_group import Place, process_group


def launch_without_cuda() -> None:
    """Lets `fastreid.engine.launch` start several processes without CUDA.

    Breaks: the worker asserts CUDA and asks for NCCL; a process group without its own time limit.
    All versions. Does: NCCL with one GPU per process where there is CUDA, gloo without; a time
    limit (FASTREID_CC_TIMEOUT_SECONDS, 1800 by default) after which a process whose peer is gone
    gives up; CPU threads are shared out. `torch.multiprocessing.spawn` ends the other processes
    when one fails and shows its traceback. Pickling this worker also activates the plug-in in the
    children. Loader workers start as they do in a process of its own: a spawned one would spawn
    them, and each would import everything anew, for every epoch. Test: test_boot.py. May go: when
    fastreid chooses the backend by device.
    """
    module = importlib.import_module("fastreid.engine.launch")  # as an attribute: the function
    assign(module, "_distributed_worker", distributed_worker)


def distributed_worker(
    local_rank: int,
    main_func: Any,
    world_size: int,
    num_gpus_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
) -> None:
    """Body of one process: joins the group, then calls `main_func(*args)`.

    Raises:
        RuntimeError: if there is CUDA but fewer GPUs than processes.
    """
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    first = machine_rank * num_gpus_per_machine
    place = Place(first + local_rank, world_size, local_rank, num_gpus_per_machine)
    with process_group(place, dist_url):
        main_func(*args)
