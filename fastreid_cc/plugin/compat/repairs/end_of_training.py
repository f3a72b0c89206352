"""The ends of a training: evaluation, resuming a finished job, a loss that is not finite."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import Any

from fastreid.engine.defaults import DefaultTrainer
from fastreid.engine.hooks import EvalHook
from fastreid.engine.train_loop import SimpleTrainer
from fastreid.utils import comm

from ..patching import around
from ..required.loader_without_cuda import close_loader
from .full_disk import explain_no_room

logger = logging.getLogger("fastreid.cc.compat")


@around(EvalHook, "after_train")
def evaluate_at_the_end_only(stock: Any, hook: Any) -> None:
    """Evaluates after training only if the training ended.

    Breaks: TEST.EVAL_PERIOD=0 is a ZeroDivisionError; a job resumed at its last epoch has no
    `trainer.epoch` (AttributeError); an exception in the last epoch is followed by an evaluation,
    which hides it, and blocks the other processes. All versions. Does: 0 means never; evaluates
    only after the last iteration, and in a job that was resumed for its evaluation alone. Test:
    test_compat_training.py. May go: when fastreid guards these.
    """
    epoch: Any = getattr(hook.trainer, "epoch", None)
    last = epoch is not None and epoch + 1 >= hook.trainer.max_epoch
    done = hook.trainer.iter >= getattr(hook.trainer, "max_iter", hook.trainer.iter)
    if hook._period > 0 and last and done:
        resumed_for_this = getattr(hook.trainer, "start_epoch", 0) > epoch
        if (epoch + 1) % hook._period != 0 or resumed_for_this:
            hook.trainer.storage.epoch = epoch
            hook._do_eval()
    del hook._func


@around(DefaultTrainer, "train")
def train_to_the_end(stock: Any, trainer: Any) -> Any:
    """Lets `DefaultTrainer.train` end well on finished jobs, without test sets and on full disks.

    Breaks: a finished job that is resumed, or a training without evaluation, ends in an
    AttributeError or AssertionError; a job killed during its last evaluation never gets it; a full
    disk is a traceback; loader threads and worker processes live on after training. All versions.
    Does: returns the last results, {} if there are none; a finished job does nothing, or what is
    missing of its last evaluation; a full disk is one message; the training loader is closed
    whatever happens. Test: test_compat_training.py. May go: when fastreid returns instead of
    asserting.
    """
    if not hasattr(trainer, "_last_eval_results"):
        trainer._last_eval_results = {}
    try:
        if trainer.start_epoch >= trainer.max_epoch:
            logger.info(
                f"Training is finished already: {trainer.start_epoch} of SOLVER.MAX_EPOCH="
                f"{trainer.max_epoch} epochs are in {trainer.checkpointer.get_checkpoint_file()}."
            )
            if not _misses_results(trainer):
                return trainer._last_eval_results
            logger.info("Its last evaluation is not in metrics.json: evaluated now.")
            trainer.epoch = trainer.max_epoch - 1
        return stock(trainer)
    except Exception as error:
        if clear := explain_no_room(error, trainer.checkpointer):
            raise clear from error
        raise
    finally:
        close_loader(trainer._trainer.data_loader)


def _misses_results(trainer: Any) -> bool:
    """Whether a finished job has a last evaluation to make that metrics.json does not know."""
    cfg = trainer.cfg
    if cfg.TEST.EVAL_PERIOD <= 0 or not cfg.DATASETS.TESTS:
        return False
    path, found = os.path.join(cfg.OUTPUT_DIR, "metrics.json"), False
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                measured = any(key.endswith("metric") for key in entry)
                found = found or (measured and entry["iteration"] >= trainer.max_iter)
    return not comm.all_gather(found)[0]  # what process 0 read


@around(SimpleTrainer, "_write_metrics")
def explain_a_loss_that_is_not_finite(stock: Any, trainer: Any, *args: Any, **kwargs: Any) -> None:
    """Says what may help where a loss is infinite or NaN.

    Breaks: "Loss became infinite or NaN" names neither what may help nor what is kept. All
    versions. Does: adds both; still FloatingPointError, before the optimizer's step. Test:
    test_faults.py. May go: never.
    """
    try:
        stock(trainer, *args, **kwargs)
    except FloatingPointError as error:
        rates = sorted({group["lr"] for group in trainer.optimizer.param_groups})
        raise FloatingPointError(
            f"{error}\nFinite losses are wanted; the learning rate was"
            f" {', '.join(f'{rate:.2g}' for rate in rates)}. The checkpoints before this step"
            " are kept. Lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or raise the"
            " temperature of the losses in MODEL.LOSSES; with SOLVER.AMP.ENABLED try"
            " CC.AMP_DTYPE bfloat16. Then start in another OUTPUT_DIR, or with --resume."
        ) from error
