"""Trainer and hooks: ends of training, resuming, profiling, weight averaging."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
from typing import Any

import torch

from .imports import fastreid_module
from .loader import close_loader
from .output import explain_no_room
from .patching import assign

logger = logging.getLogger("fastreid.cc.compat")


def evaluate_never_when_period_is_zero() -> None:
    """`EvalHook.after_train`.

    Breaks: TEST.EVAL_PERIOD=0 is a ZeroDivisionError; a job resumed at its last epoch has no
    `trainer.epoch` (AttributeError); an exception in the last epoch is followed by an evaluation,
    which hides it, and blocks the other processes. All versions. Does: 0 means never; evaluates
    only after the last iteration, and in a job that was resumed for its evaluation alone. Test:
    test_compat_training.py. May go: when fastreid guards these.
    """
    hook = fastreid_module("engine.hooks").EvalHook

    def after_train(self: Any) -> None:
        epoch: Any = getattr(self.trainer, "epoch", None)
        last = epoch is not None and epoch + 1 >= self.trainer.max_epoch
        done = self.trainer.iter >= getattr(self.trainer, "max_iter", self.trainer.iter)
        if self._period > 0 and last and done:
            resumed_for_this = getattr(self.trainer, "start_epoch", 0) > epoch
            if (epoch + 1) % self._period != 0 or resumed_for_this:
                self.trainer.storage.epoch = epoch
                self._do_eval()
        del self._func

    assign(hook, "after_train", after_train)


def train_to_the_end() -> None:
    """`DefaultTrainer.train` on finished jobs, without test sets, and what it leaves behind.

    Breaks: a finished job that is resumed, or a training without evaluation, ends in an
    AttributeError or AssertionError; a job killed during its last evaluation never gets it; a full
    disk is a traceback; loader threads and worker processes live on after training. All versions.
    Does: returns the last results, {} if there are none; a finished job does nothing, or what is
    missing of its last evaluation; a full disk is one message; the training loader is closed
    whatever happens. Test: test_compat_training.py. May go: when fastreid returns instead of
    asserting.
    """
    trainer_class = fastreid_module("engine.defaults").DefaultTrainer
    stock = trainer_class.train

    @functools.wraps(stock)
    def train(self: Any) -> Any:
        if not hasattr(self, "_last_eval_results"):
            self._last_eval_results = {}
        try:
            if self.start_epoch >= self.max_epoch:
                logger.info(
                    f"Training is finished already: {self.start_epoch} of SOLVER.MAX_EPOCH="
                    f"{self.max_epoch} epochs are in {self.checkpointer.get_checkpoint_file()}."
                )
                if not _misses_results(self):
                    return self._last_eval_results
                logger.info("Its last evaluation is not in metrics.json: evaluated now.")
                self.epoch = self.max_epoch - 1
            return stock(self)
        except Exception as error:
            clear = explain_no_room(error, self.checkpointer)
            if clear is None:
                raise
            raise clear from error
        finally:
            close_loader(self._trainer.data_loader)

    assign(trainer_class, "train", train)


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
    return not fastreid_module("utils.comm").all_gather(found)[0]  # what process 0 read


def checkpoint_without_test_sets_and_remember_the_best() -> None:
    """`PeriodicCheckpointer` before the first epoch.

    Breaks: DATASETS.TESTS=() is an IndexError; CHECKPOINT_PERIOD=0 a ZeroDivisionError; a resumed
    job forgets the best metric, and a worse model overwrites model_best.pth; it forgets the last
    metric too, and writes -1 into checkpoints of epochs without an evaluation. All versions. Does:
    without test sets, the metric is -1 (model_final is saved, no model_best); period 0 saves the
    last epoch only; a resumed job reads the best metric from model_best.pth, or else from the last
    checkpoint, and the last metric from that. Test: test_compat_training.py. May go: when fastreid
    restores it.
    """
    hook = fastreid_module("engine.hooks").PeriodicCheckpointer
    stock = hook.before_train

    @functools.wraps(stock)
    def before_train(self: Any) -> None:
        if self.period <= 0:
            self.period = self.trainer.max_epoch + 1
        if len(self.trainer.cfg.DATASETS.TESTS) == 0:
            self.max_epoch, self.metric_name = self.trainer.max_epoch, "metric"
        else:
            stock(self)
        self.last_metric = -1
        if self.trainer.start_epoch > 0:
            best = os.path.join(self.checkpointer.save_dir, "model_best.pth")
            last = _metric_of(self.checkpointer, self.checkpointer.get_checkpoint_file())
            self.last_metric = -1 if last is None else last
            found = _metric_of(self.checkpointer, best)
            self.best_metric = max(self.best_metric, self.last_metric if found is None else found)

    def after_epoch(self: Any) -> None:
        latest = fastreid_module("utils.events").get_event_storage().latest()
        metric = latest.get(self.metric_name, (self.last_metric,))[0]
        self.step(self.trainer.epoch, metric=metric)

    assign(hook, "before_train", before_train)
    assign(hook, "after_epoch", after_epoch)


def _metric_of(checkpointer: Any, path: str) -> float | None:
    """The metric in a checkpoint; None without one."""
    found = None
    with contextlib.suppress(Exception):
        found = checkpointer._load_file(path).get("metric")
    return found if isinstance(found, (int, float)) else None


def close_precise_bn_loader() -> None:
    """`hooks.PreciseBN` leaves its loader running.

    Breaks: the loader's thread (and workers, if any) outlive the hook. All versions. Does: closes
    it once the statistics are made. Test: test_compat_loader.py. May go: when fastreid closes it.
    """
    hook = fastreid_module("engine.hooks").PreciseBN
    stock = hook.update_stats

    @functools.wraps(stock)
    def update_stats(self: Any) -> None:
        try:
            stock(self)
        finally:
            if not self._disabled:
                self._data_iter = None
                close_loader(self._data_loader)

    assign(hook, "update_stats", update_stats)


def average_weights() -> None:
    """`hooks.SWA`, stochastic weight averaging.

    Breaks: it sets `trainer.optimizer`, a property without a setter (AttributeError, all versions);
    its optimizer skips the constructor of torch's, whose `step` wants hooks (torch >= 2.0), and
    clears gradients to None (see keep_flat_gradients). Does: the property hands the value to the
    inner trainer; the optimizer has empty hooks and clears as the one it wraps. Test:
    test_compat_training.py. May go: when fastreid uses torch.optim.swa_utils.
    """
    trainer_class = fastreid_module("engine.defaults").DefaultTrainer

    def get(self: Any) -> Any:
        return getattr(self._trainer, "optimizer", None)

    def put(self: Any, optimizer: Any) -> None:
        self._trainer.optimizer = optimizer

    assign(trainer_class, "optimizer", property(get, put))
    swa = fastreid_module("solver.optim.swa").SWA
    stock_init = swa.__init__

    @functools.wraps(stock_init)
    def __init__(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        stock_init(self, optimizer, *args, **kwargs)
        self.zero_grad = optimizer.zero_grad
        for name, value in vars(optimizer).items():
            if name.endswith(("_hooks", "_hooks_with_kwargs")) and isinstance(value, dict):
                vars(self).setdefault(name, type(value)())

    assign(swa, "__init__", __init__)


def profile_on_any_device() -> None:
    """`hooks.AutogradProfiler(use_cuda=...)`.

    Breaks: newer torch has no `use_cuda` argument. Does: asks for CUDA events by the name this
    torch knows, and only if there is CUDA. Test: test_compat_training.py. May go: when fastreid
    uses torch.profiler.
    """
    hook = fastreid_module("engine.hooks").AutogradProfiler

    def before_step(self: Any) -> None:
        self._profiler = None
        if self._enable_predicate(self.trainer):
            self._profiler = _profile(self._use_cuda and torch.cuda.is_available())
            self._profiler.__enter__()

    assign(hook, "before_step", before_step)


def _profile(use_cuda: bool) -> Any:
    profile = torch.autograd.profiler.profile
    if not use_cuda:
        return profile()
    try:
        return profile(use_device="cuda")
    except TypeError:
        return profile(use_cuda=True)  # type: ignore[call-arg]


def explain_a_loss_that_is_not_finite() -> None:
    """`SimpleTrainer._write_metrics`, which looks at the losses of a step.

    Breaks: "Loss became infinite or NaN" names neither what may help nor what is kept. All
    versions. Does: adds both; still FloatingPointError, before the optimizer's step. Test:
    test_faults.py. May go: never.
    """
    trainer = fastreid_module("engine.train_loop").SimpleTrainer
    stock = trainer._write_metrics

    @functools.wraps(stock)
    def _write_metrics(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            stock(self, *args, **kwargs)
        except FloatingPointError as error:
            rates = sorted({group["lr"] for group in self.optimizer.param_groups})
            raise FloatingPointError(
                f"{error}\nFinite losses are wanted; the learning rate was"
                f" {', '.join(f'{rate:.2g}' for rate in rates)}. The checkpoints before this step"
                " are kept. Lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or raise the"
                " temperature of the losses in MODEL.LOSSES; with SOLVER.AMP.ENABLED try"
                " CC.AMP_DTYPE bfloat16. Then start in another OUTPUT_DIR, or with --resume."
            ) from error

    assign(trainer, "_write_metrics", _write_metrics)
