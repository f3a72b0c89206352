"""metrics.json, TensorBoard and the printed lines: every figure once, none lost to a kill."""

from __future__ import annotations

import logging
import os
from typing import Any

from fastreid.engine import hooks
from fastreid.engine.defaults import DefaultTrainer
from fastreid.utils import events

from ..patching import around, replace, wrap

logger = logging.getLogger("fastreid.cc.compat")


class _EveryScalar(events.EventWriter):
    """Writes every scalar that is new, whatever else of its iteration was written before."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._written: dict[str, int] = {}  # last iteration of each name

    def write(self) -> None:
        """Writes what was put since the last call."""
        storage = events.get_event_storage()
        latest = storage.latest_with_smoothing_hint(self._window_size)
        fresh = {k: (v, i) for k, (v, i) in latest.items() if i > self._written.get(k, -1)}
        self._written |= {name: i for name, (_, i) in fresh.items()}
        self._last_write = -1
        storage.latest_with_smoothing_hint = lambda _window=20: fresh
        try:
            super().write()
        finally:
            del storage.latest_with_smoothing_hint


class TensorboardWriter(_EveryScalar, events.TensorboardXWriter):
    """TensorboardXWriter that loses no scalar."""


class WholeLinesWriter(_EveryScalar, events.JSONWriter):
    """JSONWriter that loses no scalar and first cuts off half a line at the end of the file."""

    def __init__(self, json_file: str, *args: Any, **kwargs: Any) -> None:
        if os.path.isfile(json_file):
            with open(json_file, "rb") as stream:
                text = stream.read()
            os.truncate(json_file, text.rfind(b"\n") + 1)
        super().__init__(json_file, *args, **kwargs)


def write_every_scalar_on_a_whole_line() -> None:
    """Keeps metrics.json and TensorBoard complete and readable.

    Breaks: a scalar is taken for written if any scalar of its iteration or a later one is: what the
    epoch after an evaluation starts with, the pseudo-labels' figures here, never reaches
    metrics.json. A killed process or a full disk leaves half a line at its end; the resumed run
    writes its first line behind it, and both are lost. All versions. Does: `WholeLinesWriter` and
    `TensorboardWriter` in place of the writers; they remember the last iteration of each name.
    Test: test_compat_output.py. May go: when fastreid does both.
    """
    replace(events, "JSONWriter", WholeLinesWriter)
    replace(events, "TensorboardXWriter", TensorboardWriter)


def write_the_metrics_of_an_evaluation() -> None:
    """Writes the metrics of the last evaluation.

    Breaks: they carry the iteration that was written just before, so the writers drop them: the
    final mAP never reaches metrics.json. All versions. Does: `EvalHook` files them under the
    iteration that follows, and `PeriodicWriter` writes once more before the writers close; if they
    cannot write after an exception, that is a warning, so that the exception is seen. Test:
    test_compat_training.py, test_compat_output.py. May go: when fastreid advances the storage
    before it evaluates.
    """
    wrap(hooks.EvalHook, "_do_eval", _evaluate_later)
    wrap(hooks.PeriodicWriter, "after_train", _write_once_more)


def _evaluate_later(stock: Any, hook: Any) -> None:
    hook.trainer.storage.iter = hook.trainer.iter
    stock(hook)


def _write_once_more(stock: Any, hook: Any) -> None:
    try:
        if hasattr(hook.trainer.storage, "epoch"):  # not if it failed before the first epoch
            hook.after_epoch()
        stock(hook)
    except OSError as error:
        if hook.trainer.iter >= getattr(hook.trainer, "max_iter", 0):
            raise
        logger.warning(f"The last metrics were not written: {error}")


@around(DefaultTrainer, "build_hooks")
def write_metrics_before_the_checkpoint(stock: Any, trainer: Any) -> Any:
    """Puts the writers before the checkpointer, after the evaluation still.

    Breaks: the checkpoint of an epoch is written before its metrics; killed in between, the
    resumed run starts after that epoch and its losses and evaluation never reach metrics.json. All
    versions. Does: another order of `DefaultTrainer.build_hooks`. Test: test_compat_output.py. May
    go: when fastreid orders them so.
    """
    found = stock(trainer)
    kinds = [isinstance(hook, hooks.PeriodicCheckpointer) for hook in found]
    first = kinds.index(True) if any(kinds) else len(found)
    writers = [hook for hook in found[first:] if isinstance(hook, hooks.PeriodicWriter)]
    return found[:first] + writers + [h for h in found[first:] if h not in writers]


@around(events.CommonMetricPrinter, "write")
def print_in_short_runs(stock: Any, printer: Any) -> None:
    """Prints in runs of fewer than three iterations.

    Breaks: `CommonMetricPrinter.write` twice at one iteration is a ZeroDivisionError where no time
    is measured yet and the ETA is estimated from the last write. All versions. Does: forgets a
    write of the same iteration. Test: test_compat_training.py. May go: when fastreid guards the
    division.
    """
    last = printer._last_write
    if last is not None and last[0] == events.get_event_storage().iter:
        printer._last_write = None
    stock(printer)
