"""A process's part in a distributed job: joins the group, and ends it so that no other waits."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from fastreid.utils import comm

from fastreid_cc.errors import ClearError
from fastreid_cc.parallel.launch_env import TIMEOUT

TIME_LIMIT = 1800  # seconds after which a process gives up on one that is gone
PATIENCE = 20.0  # seconds in which the launcher notices the process that failed first
#: What gloo and NCCL say in a process whose peer has ended.
LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote error")


class Place(NamedTuple):
    """Rank in the job and on its machine, and the number of processes of either."""

    rank: int
    world: int
    local_rank: int
    local_world: int


@contextlib.contextmanager
def process_group(place: Place, init_method: str) -> Iterator[None]:
    """Within it this process is one of a job: NCCL where there is CUDA, else gloo.

    After an error the group is not taken down, which could wait for the others: the process ends,
    and its launcher ends the others. Where the error is the loss of another process, it is held
    back for some seconds, so that the launcher sees that one's error first.

    Raises:
        RuntimeError: if there is CUDA but fewer GPUs than processes.
    """
    backend = _prepare_device(place)
    dist.init_process_group(
        backend=backend,
        init_method=init_method,
        world_size=place.world,
        rank=place.rank,
        timeout=datetime.timedelta(seconds=float(os.environ.get(TIMEOUT) or TIME_LIMIT)),
    )
    try:
        comm.synchronize()
        _group_by_machine(place)
        yield
    except Exception as error:
        if any(sign in str(error) for sign in LOST_PEER):
            time.sleep(PATIENCE)
        raise
    comm._LOCAL_PROCESS_GROUP = None
    dist.destroy_process_group()


def _group_by_machine(place: Place) -> None:
    """Sets fastreid's group of the processes on one machine; ranks of a machine are contiguous."""
    first = place.rank - place.local_rank
    firsts: list[int] = [0] * place.world
    dist.all_gather_object(firsts, first)
    for start in sorted(set(firsts)):
        group = dist.new_group([rank for rank, other in enumerate(firsts) if other == start])
        if start == first:
            comm._LOCAL_PROCESS_GROUP = group


def _prepare_device(place: Place) -> str:
    if torch.cuda.is_available():
        if place.local_world > torch.cuda.device_count():
            raise RuntimeError(
                f"{place.local_world} processes (--num-gpus, --nproc_per_node), but this machine"
                f" has {torch.cuda.device_count()} GPUs. To run on the CPU, hide them:"
                " CUDA_VISIBLE_DEVICES=''."
            )
        torch.cuda.set_device(place.local_rank)
        return "nccl"
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.local_world))
    if place.world == place.local_world and os.path.exists("/sys/class/net/lo"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return "gloo"


@contextlib.contextmanager
def end_without_waiting(place: Place) -> Iterator[None]:
    """Ends this process at an error, its traceback shown, without waiting for threads of the group.

    An orderly end would wait for messages under way to processes that wait for this one.
    """
    try:
        yield
    except Exception as error:
        print(f"Process {place.rank} of {place.world} failed:", file=sys.stderr)
        if isinstance(error, ClearError):
            print(f"fastreid_cc: {error}", file=sys.stderr)
        else:
            traceback.print_exc()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
