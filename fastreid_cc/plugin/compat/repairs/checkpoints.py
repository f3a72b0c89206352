"""Checkpoints: whole files or none, tensors only, the newest whole one, the best metric."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from collections.abc import Iterator
from typing import IO, Any

from fastreid.engine import hooks
from fastreid.utils import checkpoint
from fastreid.utils.events import get_event_storage

from fastreid_cc.errors import printable
from fastreid_cc.files import write_atomically

from ...checkpoint_files import is_whole, load_file
from ..patching import View, around, assign, replace

logger = logging.getLogger("fastreid.cc.compat")


def save_whole_checkpoints() -> None:
    """Writes checkpoints and `last_checkpoint` whole or not at all.

    Breaks: a process that is killed while it writes leaves half a checkpoint, or an empty
    `last_checkpoint`, and the job cannot be resumed. All versions. Does: what `Checkpointer` opens
    for writing is a file beside, renamed when it is closed; what a full disk cut short is removed.
    Paths with a "://" handler are written as in stock. Test: test_compat_checkpoint.py. May go:
    when fastreid writes atomically.
    """
    manager = checkpoint.PathManager

    @contextlib.contextmanager
    def open_whole(path: str, mode: str = "r") -> Iterator[IO[Any]]:
        if "w" not in mode or "://" in path:
            with manager.open(path, mode) as stream:
                yield stream
        else:
            with write_atomically(path) as part, part.open(mode) as stream:
                yield stream

    assign(checkpoint, "PathManager", View(manager, open=open_whole))


@around(checkpoint.Checkpointer, "_load_file")
def load_tensors_only(stock: Any, checkpointer: Any, f: str) -> Any:
    """Loads checkpoints without running what code they hold.

    Breaks: torch >= 2.6 loads tensors and plain values only, and refuses the rest with a message
    that advises to switch the protection off; older torch runs whatever code a file holds. Does:
    `weights_only=True` everywhere, numpy arrays and numbers included, and a message that names the
    file and the object refused. Test: test_compat_checkpoint.py. May go: when fastreid does so.
    """
    return load_file(f)


class ResumingCheckpointer(checkpoint.Checkpointer):
    """Checkpointer that finds the newest whole checkpoint of a folder."""

    def load(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """As stock; but "from scratch" is not said of a network that has weights already."""
        if path:
            return super().load(path, *args, **kwargs)
        self.logger.info(
            "No checkpoint to load: the network starts with the weights it was built with"
            " (MODEL.BACKBONE.PRETRAIN, PRETRAIN_PATH)."
        )
        return {}

    def get_checkpoint_file(self) -> str:
        """The checkpoint to resume from; "" if there is none."""
        if "://" in self.save_dir:
            return str(super().get_checkpoint_file())
        tagged = _tagged(self.save_dir)
        if tagged and is_whole(tagged):
            return tagged
        state = f"{tagged} is damaged" if tagged else f"{self.save_dir} has no last_checkpoint"
        known = _newest_first(self.save_dir, any_name=bool(tagged))
        for path in known:
            if is_whole(path):
                _warn(f"{state}: using {path}.")
                return path
        if tagged or known:
            _warn(f"{state} and {self.save_dir} holds no whole checkpoint: starting anew.")
        return ""

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        if "://" in self.save_dir:
            return bool(super().has_checkpoint())
        return bool(self.get_checkpoint_file())


def resume_from_the_newest_whole_checkpoint() -> None:
    """Resumes from the newest checkpoint that is whole.

    Breaks: a torn newest checkpoint, or an empty or stale `last_checkpoint`, makes `--resume` fail
    for good; bytes that changed inside a checkpoint are loaded as weights; without
    `last_checkpoint` the job starts anew over the checkpoints that are there; "Training model from
    scratch" is said after pretrained weights were loaded. All versions. Does:
    `ResumingCheckpointer` falls back to the newest whole .pth in the folder (without
    `last_checkpoint`: of those fastreid names model_0000.pth and so on), with a warning; without
    any, the job starts anew. Test: test_compat_checkpoint.py. May go: never, files can tear in
    other ways.
    """
    replace(checkpoint, "Checkpointer", ResumingCheckpointer)


def _tagged(folder: str) -> str:
    """The checkpoint that `last_checkpoint` names; "" without that file.

    A name that leads out of the folder, or is no name, stands for the folder itself: not whole.
    """
    try:
        with open(os.path.join(folder, "last_checkpoint"), "rb") as stream:
            name = os.fsdecode(stream.read(4096).strip())
    except OSError:
        return ""
    return os.path.join(folder, name if os.path.basename(name) == name and "\0" not in name else "")


@functools.lru_cache(maxsize=64)
def _warn(message: str) -> None:
    """Warns once: fastreid asks for the file several times when it resumes."""
    logger.warning(printable(message))


def _newest_first(folder: str, any_name: bool) -> list[str]:
    """Checkpoints in a folder; unless `any_name`, fastreid's, if a numbered one is among them."""
    names = [n for n in os.listdir(folder) if n.endswith(".pth")] if os.path.isdir(folder) else []
    if not any_name:
        names = [name for name in names if re.fullmatch(r"model_(\d+|best|final)\.pth", name)]
        names = names if any(re.search(r"\d", name) for name in names) else []
    paths = [os.path.join(folder, name) for name in names]
    return sorted(paths, key=lambda path: (os.path.getmtime(path), path), reverse=True)


class RememberingCheckpointer(hooks.PeriodicCheckpointer):
    """PeriodicCheckpointer that knows the metrics of the job it resumes, and may have none."""

    period: int
    best_metric: float
    last_metric: float

    def before_train(self) -> None:
        """Reads what an earlier run reached."""
        if self.period <= 0:
            self.period = self.trainer.max_epoch + 1
        if len(self.trainer.cfg.DATASETS.TESTS) == 0:
            self.max_epoch, self.metric_name = self.trainer.max_epoch, "metric"
        else:
            super().before_train()
        self.last_metric = -1
        if self.trainer.start_epoch > 0:
            last = _metric_of(self.checkpointer, self.checkpointer.get_checkpoint_file())
            self.last_metric = -1 if last is None else last
            path = os.path.join(self.checkpointer.save_dir, "model_best.pth")
            best = _metric_of(self.checkpointer, path)
            self.best_metric = max(self.best_metric, self.last_metric if best is None else best)

    def after_epoch(self) -> None:
        """Saves, with the last metric known."""
        metric = get_event_storage().latest().get(self.metric_name, (self.last_metric,))[0]
        self.step(self.trainer.epoch, metric=metric)


def remember_the_best_metric() -> None:
    """Keeps the best and the last metric over a resume; saves without test sets too.

    Breaks: DATASETS.TESTS=() is an IndexError; CHECKPOINT_PERIOD=0 a ZeroDivisionError; a resumed
    job forgets the best metric, and a worse model overwrites model_best.pth; it forgets the last
    metric too, and writes -1 into checkpoints of epochs without an evaluation. All versions. Does:
    `RememberingCheckpointer`: without test sets, the metric is -1 (model_final is saved, no
    model_best); period 0 saves the last epoch only; a resumed job reads the best metric from
    model_best.pth, or else from the last checkpoint, and the last metric from that. Test:
    test_compat_training.py. May go: when fastreid restores it.
    """
    replace(hooks, "PeriodicCheckpointer", RememberingCheckpointer)


def _metric_of(checkpointer: Any, path: str) -> float | None:
    """The metric in a checkpoint; None without one."""
    found = None
    with contextlib.suppress(Exception):
        found = checkpointer._load_file(path).get("metric")
    return found if isinstance(found, (int, float)) else None
