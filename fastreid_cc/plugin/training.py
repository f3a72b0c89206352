"""What `python -m fastreid_cc train` does: fast-reid's tools/train_net.py, mistakes told first."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from fastreid.config import get_cfg
from fastreid.engine import DefaultTrainer, default_setup, launch
from fastreid.utils.checkpoint import Checkpointer

from .preflight import preflight


def read(args: argparse.Namespace) -> Any:
    """The frozen config of a command line."""
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    return cfg


def start(args: argparse.Namespace, worker: Callable[[argparse.Namespace], object]) -> None:
    """Runs `worker(args)` in as many processes as asked for.

    Args:
        args: of the command line of `train`.
        worker: calls `train`; a module's function, which spawned processes import.

    Raises:
        ClearError: see `preflight`; before a process is started.
    """
    world_size = args.num_gpus * args.num_machines
    if world_size > 1:  # else `default_setup` does the same in this process
        preflight(read(args), resume=args.resume, eval_only=args.eval_only, world_size=world_size)
    launch(
        worker,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


def train(args: argparse.Namespace) -> Any:
    """Trains, or evaluates with `--eval-only`, in this process; the results."""
    cfg = read(args)
    default_setup(cfg, args)
    if args.eval_only:
        cfg.defrost()
        cfg.MODEL.BACKBONE.PRETRAIN = False
        model = DefaultTrainer.build_model(cfg)
        Checkpointer(model).load(cfg.MODEL.WEIGHTS)
        return DefaultTrainer.test(cfg, model)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()
