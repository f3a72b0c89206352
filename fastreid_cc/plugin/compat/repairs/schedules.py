"""Optimizers and schedules that cannot work."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch
from fastreid.solver import build as solver

from fastreid_cc.errors import BadConfig

from ..patching import around, with_values


@around(solver, "build_optimizer")
def explain_impossible_optimizers(stock: Any, cfg: Any, *args: Any, **kwargs: Any) -> Any:
    """Names SOLVER.OPT where it is no optimizer that fastreid can run.

    Breaks: LBFGS and unknown names are obscure errors. All versions. Does: a ValueError with the
    key and the names there are. Test: test_compat_training.py. May go: when fastreid checks it.
    """
    classes = dict(inspect.getmembers(torch.optim, inspect.isclass))
    kinds = {name for name, cls in classes.items() if issubclass(cls, torch.optim.Optimizer)}
    kinds -= {"LBFGS", "Optimizer"}
    if cfg.SOLVER.OPT not in kinds:
        reason = "no such optimizer"
        if cfg.SOLVER.OPT == "LBFGS":
            reason = "it takes no parameter groups and needs a closure, which fastreid lacks"
        raise BadConfig(
            f"SOLVER.OPT={cfg.SOLVER.OPT!r}: {reason}. Known: {', '.join(sorted(kinds))}."
        )
    return stock(cfg, *args, **kwargs)


@around(solver, "build_lr_scheduler")
def check_schedule(stock: Any, cfg: Any, optimizer: Any, iters_per_epoch: int) -> Any:
    """Refuses or mends the schedules of very short trainings.

    Breaks: `iters_per_epoch == 0` is a ZeroDivisionError; a cosine schedule whose warm-up or delay
    covers all epochs has T_max <= 0, which torch accepts and then divides by (T_max 0) at the last
    step. Does: a ValueError that names the keys for the first; T_max 1 and a warning for the second
    (the schedule could take no more than its last step anyway). Test: test_compat_training.py. May
    go: when fastreid checks its config.
    """
    if iters_per_epoch < 1:
        raise BadConfig(
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
        cfg = with_values(cfg, "SOLVER.MAX_EPOCH", head + 1)
    return stock(cfg, optimizer, iters_per_epoch)
