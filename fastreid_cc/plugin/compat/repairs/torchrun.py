"""Processes that torchrun started."""

from __future__ import annotations

import importlib
import os
from typing import Any

from fastreid_cc.errors import WrongUse

from ..patching import around
from ..process_group import Place, end_without_waiting, process_group


@around(importlib.import_module("fastreid.engine.launch"), "launch")  # no attribute leads there
def launch_under_torchrun(
    stock: Any,
    main_func: Any,
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
) -> None:
    """Joins the processes that torchrun started into one training.

    Breaks: with --num-gpus 1 `fastreid.engine.launch` calls main without a process group, so
    torchrun's N processes train N times, apart, into one OUTPUT_DIR. All versions. Does: where
    torchrun's environment is there (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT) and
    tells of several processes, the process joins their group; an error ends it at once with its
    traceback, so that torchrun ends the others. WORLD_SIZE 1 runs as without torchrun. Test:
    test_torchrun.py. May go: when fastreid looks for torchrun.
    """
    place = torchrun_place(num_gpus_per_machine * num_machines)
    if place is None:
        stock(main_func, num_gpus_per_machine, num_machines, machine_rank, dist_url, args)
        return
    with end_without_waiting(place), process_group(place, "env://"):
        main_func(*args)


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
        raise WrongUse(
            f"torchrun started {local_world} process(es) here, and each was asked to start {asked}"
            " more (--num-gpus, --num-machines). Leave these options to torchrun's"
            " --nproc_per_node and --nnodes."
        )
    if missing := ", ".join(name for name in names if name not in there):
        raise WrongUse(
            f"RANK={rank} and WORLD_SIZE={world} are set, but not {missing}. Start the job by"
            " torchrun, which sets all of them, or unset RANK and WORLD_SIZE."
        )
    return Place(rank, world, int(there["LOCAL_RANK"]), local_world)
