"""metrics.json, TensorBoard and the printed lines: every figure once, none lost to a kill."""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

from .imports import fastreid_module
from .patching import assign

logger = logging.getLogger("fastreid.cc.compat")


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
    under the iteration that follows, and writes once more before the writers close; if they cannot
    write after an exception, that is a warning, so that the exception is seen. Test:
    test_compat_training.py, test_compat_output.py. May go: when fastreid advances the storage
    before it evaluates.
    """
    hooks = fastreid_module("engine.hooks")
    evaluate, after_train = hooks.EvalHook._do_eval, hooks.PeriodicWriter.after_train

    @functools.wraps(evaluate)
    def _do_eval(self: Any) -> None:
        self.trainer.storage.iter = self.trainer.iter
        evaluate(self)

    @functools.wraps(after_train)
    def close(self: Any) -> None:
        try:
            if hasattr(self.trainer.storage, "epoch"):  # not if it failed before the first epoch
                self.after_epoch()
            after_train(self)
        except OSError as error:
            if self.trainer.iter >= getattr(self.trainer, "max_iter", 0):
                raise
            logger.warning(f"The last metrics were not written: {error}")

    assign(hooks.EvalHook, "_do_eval", _do_eval)
    assign(hooks.PeriodicWriter, "after_train", close)


def end_metrics_at_a_whole_line() -> None:
    """`JSONWriter` of a resumed run.

    Breaks: a killed process or a full disk leaves half a line at the end of metrics.json; the
    resumed run writes its first line behind it, and both are lost. All versions. Does: cuts the
    half line off. Test: test_compat_output.py. May go: when fastreid does so.
    """
    writer = fastreid_module("utils.events").JSONWriter
    stock = writer.__init__

    @functools.wraps(stock)
    def __init__(self: Any, json_file: str, *args: Any, **kwargs: Any) -> None:
        if os.path.isfile(json_file):
            _cut_half_line(json_file)
        stock(self, json_file, *args, **kwargs)

    assign(writer, "__init__", __init__)


def _cut_half_line(path: str) -> None:
    with open(path, "rb") as stream:
        text = stream.read()
    if text and not text.endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)


def write_every_scalar() -> None:
    """`JSONWriter.write` and `TensorboardXWriter.write`.

    Breaks: a scalar is taken for written if any scalar of its iteration or a later one is: what the
    epoch after an evaluation starts with, the pseudo-labels' figures here, never reaches
    metrics.json. All versions. Does: remembers the last iteration of each name. Test:
    test_compat_output.py. May go: when fastreid does so.
    """
    events = fastreid_module("utils.events")
    for writer in (events.JSONWriter, events.TensorboardXWriter):
        assign(writer, "write", _fresh_only(writer.write, events))


def _fresh_only(stock: Any, events: Any) -> Any:
    @functools.wraps(stock)
    def write(self: Any) -> None:
        storage = events.get_event_storage()
        seen = vars(self).setdefault("_written", {})
        latest = storage.latest_with_smoothing_hint(self._window_size)
        fresh = {name: (v, i) for name, (v, i) in latest.items() if i > seen.get(name, -1)}
        seen.update({name: i for name, (_, i) in fresh.items()})
        self._last_write = -1
        storage.latest_with_smoothing_hint = lambda _window=20: fresh
        try:
            stock(self)
        finally:
            del storage.latest_with_smoothing_hint

    return write


def write_metrics_before_the_checkpoint() -> None:
    """The order of `DefaultTrainer.build_hooks`.

    Breaks: the checkpoint of an epoch is written before its metrics; killed in between, the
    resumed run starts after that epoch and its losses and evaluation never reach metrics.json. All
    versions. Does: writers go before the checkpointer, after the evaluation still. Test:
    test_compat_output.py. May go: when fastreid orders them so.
    """
    hooks = fastreid_module("engine.hooks")
    trainer = fastreid_module("engine.defaults").DefaultTrainer
    stock = trainer.build_hooks

    @functools.wraps(stock)
    def build_hooks(self: Any) -> Any:
        found = stock(self)
        writers = [hook for hook in found if isinstance(hook, hooks.PeriodicWriter)]
        kinds = [isinstance(hook, hooks.PeriodicCheckpointer) for hook in found]
        if not writers or not any(kinds):
            return found
        first = kinds.index(True)
        before = [hook for hook in found[:first] if hook not in writers]
        after = [hook for hook in found[first:] if hook not in writers]
        return before + writers + after

    assign(trainer, "build_hooks", build_hooks)
