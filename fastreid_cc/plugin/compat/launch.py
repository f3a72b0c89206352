"""`launch` on machines without CUDA: processes that talk over gloo."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
import torch.distributed as dist

from .imports import fastreid_module
from .patching import assign

TIME_LIMIT = datetime.timedelta(minutes=30)


def launch_without_cuda() -> None:
    """`fastreid.engine.launch` with more than one process.

    Breaks: the worker asserts CUDA and asks for NCCL; a process group without its own time limit.
    All versions. Does: NCCL with one GPU per process where there is CUDA, gloo without; a time
    limit (FASTREID_CC_TIMEOUT seconds, 1800 by default) after which a process whose peer is gone
    gives up; CPU threads are shared out. `torch.multiprocessing.spawn` ends the other processes
    when one fails and shows its traceback. Pickling this worker also activates the plug-in in the
    children. Test: test_boot.py. May go: when fastreid chooses the backend by device.
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
    backend = _prepare_device(
        local_rank, num_gpus_per_machine, single=world_size == num_gpus_per_machine
    )
    seconds = os.environ.get("FASTREID_CC_TIMEOUT")
    dist.init_process_group(
        backend=backend,
        init_method=dist_url,
        world_size=world_size,
        rank=machine_rank * num_gpus_per_machine + local_rank,
        timeout=datetime.timedelta(seconds=float(seconds)) if seconds else TIME_LIMIT,
    )
    try:
        comm = fastreid_module("utils.comm")
        comm.synchronize()
        for machine in range(world_size // num_gpus_per_machine):
            first = machine * num_gpus_per_machine
            group = dist.new_group(list(range(first, first + num_gpus_per_machine)))
            if machine == machine_rank:
                comm._LOCAL_PROCESS_GROUP = group
        main_func(*args)
    finally:
        dist.destroy_process_group()


def _prepare_device(local_rank: int, processes: int, *, single: bool) -> str:
    if torch.cuda.is_available():
        if processes > torch.cuda.device_count():
            raise RuntimeError(
                f"--num-gpus {processes}, but this machine has {torch.cuda.device_count()} GPUs. "
                "To run on the CPU, hide them: CUDA_VISIBLE_DEVICES=''."
            )
        torch.cuda.set_device(local_rank)
        return "nccl"
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    if single and os.path.exists("/sys/class/net/lo"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return "gloo"
