"""`launch` beyond its own processes on CUDA: gloo on a CPU, and processes that torchrun started."""

from __future__ import annotations

import functools
import multiprocessing
import os
from typing import Any

from .imports import fastreid_module
from .patching import assign, replace
from .process_group import Place, end_without_waiting, process_group


def launch_without_cuda() -> None:
    """`fastreid.engine.launch` with more than one process.

    Breaks: the worker asserts CUDA and asks for NCCL; a process group without its own time limit.
    All versions. Does: NCCL with one GPU per process where there is CUDA, gloo without; a time
    limit (FASTREID_CC_TIMEOUT seconds, 1800 by default) after which a process whose peer is gone
    gives up; CPU threads are shared out. `torch.multiprocessing.spawn` ends the other processes
    when one fails and shows its traceback. Pickling this worker also activates the plug-in in the
    children. Loader workers start as they do in a process of its own: a spawned one would spawn
    them, and each would import everything anew, for every epoch. Test: test_boot.py. May go: when
    fastreid chooses the backend by device.
    """
    assign(fastreid_module("engine.launch"), "_distributed_worker", distributed_worker)


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


def launch_under_torchrun() -> None:
    """`fastreid.engine.launch` in a process that torchrun started.

    Breaks: with --num-gpus 1 it calls main without a process group, so torchrun's N processes train
    N times, apart, into one OUTPUT_DIR. All versions. Does: where torchrun's environment is there
    (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) and tells of several processes, the
    process joins their group; an error ends it at once with its traceback, so that torchrun ends
    the others. WORLD_SIZE 1 runs as without torchrun. Test: test_torchrun.py. May go: when fastreid
    looks for torchrun.
    """
    module = fastreid_module("engine.launch")
    stock = module.launch

    @functools.wraps(stock)
    def launch(
        main_func: Any,
        num_gpus_per_machine: int,
        num_machines: int = 1,
        machine_rank: int = 0,
        dist_url: str | None = None,
        args: tuple[Any, ...] = (),
    ) -> None:
        place = torchrun_place(num_gpus_per_machine * num_machines)
        if place is None:
            stock(main_func, num_gpus_per_machine, num_machines, machine_rank, dist_url, args)
            return
        with end_without_waiting(place), process_group(place, "env://"):
            main_func(*args)

    replace(module, "launch", launch)


def torchrun_place(asked: int) -> Place | None:
    """This process's place among those torchrun started; None without torchrun, or alone.

    Args:
        asked: processes that `launch` was to start.
    Raises:
        ValueError: if each of torchrun's processes was asked to start others, or if torchrun's
            variables are not whole.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    there = {name: os.environ[name] for name in names if os.environ.get(name)}
    if not {"RANK", "WORLD_SIZE"} <= there.keys() or there["WORLD_SIZE"] == "1":
        return None
    rank, world = int(there["RANK"]), int(there["WORLD_SIZE"])
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if asked not in (1, local_world, world):
        raise ValueError(
            f"torchrun started {local_world} process(es) here, and each was asked to start {asked}"
            " more (--num-gpus, --num-machines). Leave these options to torchrun's"
            " --nproc_per_node and --nnodes."
        )
    if len(there) < len(names):
        missing = ", ".join(name for name in names if name not in there)
        raise ValueError(
            f"RANK={rank} and WORLD_SIZE={world} are set, but not {missing}. Start the job by"
            " torchrun, which sets all of them, or unset RANK and WORLD_SIZE."
        )
    return Place(rank, world, int(there["LOCAL_RANK"]), local_world)
