"""What a run writes: whole or not at all, and one message when the disk is full or read-only."""

from __future__ import annotations

import errno
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from fastreid_cc.errors import Unwritable, shown

from .imports import fastreid_module
from .patching import assign, replace

#: What the system says when a folder takes no more bytes.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def write_whole(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Writes beside `path`, flushes to disk, then renames: a killed process leaves the old file.

    Args:
        path: the file.
        write: writes its bytes to the stream it is given.

    Raises:
        OSError: naming `path`, if its folder takes no more; nothing of the new file is left.
    """
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if os.path.lexists(temporary):
            os.remove(temporary)
        found = _no_room(error)
        if found is None:
            raise
        raise OSError(found.errno, found.strerror, path) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _no_room(error: BaseException) -> OSError | None:
    """The OSError behind an error (torch's writer wraps it) if it says that there is no room."""
    found = (e for e in _chain(error) if isinstance(e, OSError) and e.errno in FULL)
    return next(found, None)


def explain_no_room(error: BaseException, checkpointer: Any) -> Unwritable | None:
    """The same error in words: what could not be written, what is kept, what to do.

    Args:
        error: what ended a training.
        checkpointer: of the training.

    Returns:
        None if the error is about something else.
    """
    found = _no_room(error)
    if found is None:
        return None
    folder = checkpointer.save_dir
    kept = checkpointer.get_checkpoint_file()
    return Unwritable(
        f"{shown(found.filename or folder)} could not be written: {found.strerror}"
        f" ({_free(folder)} on the disk of OUTPUT_DIR={shown(folder)}). "
        + (f"{shown(kept)} is whole. " if kept else "There is no whole checkpoint yet. ")
        + "Make room, write fewer checkpoints (SOLVER.CHECKPOINT_PERIOD) or copy the folder to"
        " another OUTPUT_DIR; then start the same command with --resume."
    )


def _free(folder: str) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB free"
    except OSError:
        return "unknown room"


def name_an_output_folder_that_cannot_be_written() -> None:
    """`default_setup` on a read-only or full disk, or where OUTPUT_DIR is a file.

    Breaks: a traceback out of `open("log.txt")` or `makedirs`, which names no key. All versions.
    Does: one message with OUTPUT_DIR, before anything is built. Test: test_compat_output.py. May
    go: when fastreid checks it.
    """
    defaults = fastreid_module("engine.defaults")
    stock = defaults.default_setup

    @functools.wraps(stock)
    def default_setup(cfg: Any, args: Any) -> Any:
        try:
            return stock(cfg, args)
        except OSError as error:
            if not _concerns(error, cfg.OUTPUT_DIR):
                raise
            raise Unwritable(
                f"OUTPUT_DIR={shown(cfg.OUTPUT_DIR)} cannot be written: {shown(error)}. Set it to a"
                " folder on a disk with room that you may write to."
            ) from error

    replace(defaults, "default_setup", default_setup)


def _concerns(error: OSError, folder: str) -> bool:
    """Whether an error is about writing to a folder: what it names lies there, or it names none."""
    if error.filename is None:
        return error.errno in FULL
    named, folder = os.path.abspath(os.fsdecode(error.filename)), os.path.abspath(folder)
    is_above = folder.startswith(named + os.sep) and error.errno != errno.EISDIR
    return named == folder or named.startswith(folder + os.sep) or is_above


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
