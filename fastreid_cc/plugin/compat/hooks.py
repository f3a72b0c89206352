"""Trainer and hooks: ends of training, resuming, profiling, weight averaging."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from typing import Any

import torch

from .imports import fastreid_module
from .loader import close_loader
from .patching import assign

logger = logging.getLogger("fastreid.cc.compat")


def evaluate_never_when_period_is_zero() -> None:
    """`EvalHook.after_train`.

    Breaks: TEST.EVAL_PERIOD=0 is a ZeroDivisionError; a job resumed at its last epoch has no
    `trainer.epoch` (AttributeError); an exception in the last epoch is followed by an evaluation,
    which hides it, and blocks the other processes. All versions. Does: 0 means never; evaluates
    only after the last iteration. Test: test_compat_training.py. May go: when fastreid guards
    these.
    """
    hook = fastreid_module("engine.hooks").EvalHook

    def after_train(self: Any) -> None:
        epoch: Any = getattr(self.trainer, "epoch", None)
        last = epoch is not None and epoch + 1 >= self.trainer.max_epoch
        done = self.trainer.iter >= getattr(self.trainer, "max_iter", self.trainer.iter)
        if self._period > 0 and last and done and (epoch + 1) % self._period != 0:
            self._do_eval()
        del self._func

    assign(hook, "after_train", after_train)


def train_to_the_end() -> None:
    """`DefaultTrainer.train` on finished jobs, without test sets, and what it leaves behind.

    Breaks: a finished job that is resumed, or a training without evaluation, ends in an
    AttributeError or AssertionError; loader threads and worker processes live on after training.
    All versions. Does: returns the last results, {} if there are none; a finished job does
    nothing; the training loader is closed whatever happens. Test: test_compat_training.py. May go:
    when fastreid returns instead of asserting.
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
                return self._last_eval_results
            return stock(self)
        finally:
            close_loader(self._trainer.data_loader)

    assign(trainer_class, "train", train)


def checkpoint_without_test_sets_and_remember_the_best() -> None:
    """`PeriodicCheckpointer` before the first epoch.

    Breaks: DATASETS.TESTS=() is an IndexError; CHECKPOINT_PERIOD=0 a ZeroDivisionError; a resumed
    job forgets the best metric, and a worse model overwrites model_best.pth. All versions. Does:
    without test sets, the metric is -1 (model_final is saved, no model_best); period 0 saves the
    last epoch only; a resumed job reads the best metric from model_best.pth, or else from the last
    checkpoint. Test: test_compat_training.py. May go: when fastreid restores it.
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
        if self.trainer.start_epoch > 0:
            self.best_metric = max(self.best_metric, _best_metric(self.checkpointer))

    assign(hook, "before_train", before_train)


def _best_metric(checkpointer: Any) -> float:
    best = os.path.join(checkpointer.save_dir, "model_best.pth")
    for path in (best, checkpointer.get_checkpoint_file()):
        with contextlib.suppress(Exception):
            metric = checkpointer._load_file(path).get("metric")
            if metric is not None:
                return float(metric)
    return -1.0


def print_in_short_runs() -> None:
    """`CommonMetricPrinter.write` twice at one iteration.

    Breaks: ZeroDivisionError in runs of fewer than three iterations, where no time is measured yet
    and the ETA is estimated from the last write. All versions. Does: forgets a write of the same
    iteration. Test: test_compat_training.py. May go: when fastreid guards the division.
    """
    events = fastreid_module("utils.events")
    stock = events.CommonMetricPrinter.write

    @functools.wraps(stock)
    def write(self: Any) -> None:
        if self._last_write is not None and self._last_write[0] == events.get_event_storage().iter:
            self._last_write = None
        stock(self)

    assign(events.CommonMetricPrinter, "write", write)


def write_the_metrics_of_an_evaluation() -> None:
    """`EvalHook._do_eval` and `PeriodicWriter.after_train`.

    Breaks: the last evaluation's metrics carry the iteration that was written just before, so the
    writers drop them: the final mAP never reaches metrics.json. All versions. Does: files them
    under the iteration that follows, and writes once more before the writers close. Test:
    test_compat_training.py. May go: when fastreid advances the storage before it evaluates.
    """
    hooks = fastreid_module("engine.hooks")
    evaluate, after_train = hooks.EvalHook._do_eval, hooks.PeriodicWriter.after_train

    @functools.wraps(evaluate)
    def _do_eval(self: Any) -> None:
        self.trainer.storage.iter = self.trainer.iter
        evaluate(self)

    @functools.wraps(after_train)
    def close(self: Any) -> None:
        if hasattr(self.trainer.storage, "epoch"):  # not if it failed before the first epoch
            self.after_epoch()
        after_train(self)

    assign(hooks.EvalHook, "_do_eval", _do_eval)
    assign(hooks.PeriodicWriter, "after_train", close)


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
