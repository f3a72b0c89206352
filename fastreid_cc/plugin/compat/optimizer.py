"""Optimizers and schedules."""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch

from .imports import fastreid_module
from .patching import assign, replace


def keep_flat_gradients() -> None:
    """Training that trains.

    Breaks: on torch >= 2.0 `optimizer.zero_grad()` sets gradients to None. fastreid's optimizer
    holds one flat parameter whose `.grad` is the buffer all gradients are views of; once it is None
    every later step does nothing, without a word. Does: the optimizer that `build_optimizer`
    returns always zeroes in place, and `ContiguousParams.buffer_is_valid` also looks at the flat
    gradients. Torch 1.13 did the same by default. Test: test_compat_training.py::
    test_stock_training_is_a_silent_no_op. May go: when fastreid passes set_to_none=False.
    """
    build = fastreid_module("solver.build")
    params = fastreid_module("utils.params")
    stock, stock_valid = build.build_optimizer, params.ContiguousParams.buffer_is_valid

    @functools.wraps(stock)
    def build_optimizer(cfg: Any, model: Any, contiguous: bool = True) -> Any:
        _check_name(cfg.SOLVER.OPT)
        optimizer, wrapper = stock(cfg, model, contiguous)
        if contiguous:
            zero_grad = optimizer.zero_grad
            optimizer.zero_grad = lambda set_to_none=False: zero_grad(set_to_none=False)
        return optimizer, wrapper

    def buffer_is_valid(self: Any) -> bool:
        flat = zip(self._param_buffer, self._grad_buffer, strict=True)
        return all(p.grad is g for p, g in flat) and stock_valid(self)

    replace(build, "build_optimizer", build_optimizer)
    assign(params.ContiguousParams, "buffer_is_valid", buffer_is_valid)


def _check_name(name: str) -> None:
    cls = getattr(torch.optim, name, None)
    if name == "LBFGS":
        raise ValueError(
            "SOLVER.OPT='LBFGS' cannot run in fastreid: it takes no parameter groups and needs a "
            "closure. Choose another, e.g. SOLVER.OPT='Adam'."
        )
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        known = sorted(
            n for n, c in vars(torch.optim).items() if isinstance(c, type) and n[0] != "_"
        )
        raise ValueError(f"SOLVER.OPT={name!r}: no such optimizer. Known: {', '.join(known)}.")


def check_schedule() -> None:
    """Schedules of very short trainings.

    Breaks: `iters_per_epoch == 0` is a ZeroDivisionError; a cosine schedule whose warm-up or delay
    covers all epochs has T_max <= 0, which torch accepts and then divides by (T_max 0) at the last
    step. Does: a ValueError that names the keys for the first; T_max 1 and a warning for the second
    (the schedule could take no more than its last step anyway). Test: test_compat_training.py. May
    go: when fastreid checks its config.
    """
    build = fastreid_module("solver.build")
    stock = build.build_lr_scheduler

    @functools.wraps(stock)
    def build_lr_scheduler(cfg: Any, optimizer: Any, iters_per_epoch: int) -> Any:
        if iters_per_epoch < 1:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH={cfg.SOLVER.IMS_PER_BATCH} is larger than the training set "
                f"of DATASETS.NAMES={tuple(cfg.DATASETS.NAMES)}: an epoch would have no iteration. "
                "Lower IMS_PER_BATCH or add images."
            )
        head = max(-(-cfg.SOLVER.WARMUP_ITERS // iters_per_epoch), cfg.SOLVER.DELAY_EPOCHS)
        if cfg.SOLVER.SCHED == "CosineAnnealingLR" and cfg.SOLVER.MAX_EPOCH <= head:
            logging.getLogger("fastreid.cc.compat").warning(
                f"SOLVER.MAX_EPOCH={cfg.SOLVER.MAX_EPOCH} is no longer than the warm-up or delay "
                f"of {head} epochs (SOLVER.WARMUP_ITERS={cfg.SOLVER.WARMUP_ITERS} at "
                f"{iters_per_epoch} iterations per epoch, SOLVER.DELAY_EPOCHS="
                f"{cfg.SOLVER.DELAY_EPOCHS}): the cosine schedule never runs."
            )
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SOLVER.MAX_EPOCH = head + 1
        return stock(cfg, optimizer, iters_per_epoch)

    replace(build, "build_lr_scheduler", build_lr_scheduler)
