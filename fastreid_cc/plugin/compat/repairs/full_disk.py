"""One message when the disk is full or read-only."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import Any

from fastreid.engine import defaults

from fastreid_cc.errors import Unwritable, printable

from ..patching import around

#: What the system says when a folder takes no more bytes.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def _no_room(error: BaseException | None) -> OSError | None:
    """The OSError behind an error (torch's writer wraps it) if it says that there is no room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


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
    folder, room = checkpointer.save_dir, "unknown room"
    with contextlib.suppress(OSError):
        room = f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB free"
    kept = checkpointer.get_checkpoint_file()
    return Unwritable(
        f"{printable(found.filename or folder)} could not be written: {found.strerror}"
        f" ({room} on the disk of OUTPUT_DIR={printable(folder)}). "
        + (f"{printable(kept)} is whole. " if kept else "There is no whole checkpoint yet. ")
        + "Make room, write fewer checkpoints (SOLVER.CHECKPOINT_PERIOD) or copy the folder to"
        " another OUTPUT_DIR; then start the same command with --resume."
    )


@around(defaults, "default_setup")
def name_an_output_folder_that_cannot_be_written(stock: Any, cfg: Any, args: Any) -> Any:
    """Names OUTPUT_DIR where it is on a read-only or full disk, or is a file.

    Breaks: `default_setup` ends in a traceback out of `open("log.txt")` or `makedirs`. All
    versions. Does: one message with OUTPUT_DIR, before anything is built. Test:
    test_compat_output.py. May go: when fastreid checks it.
    """
    try:
        return stock(cfg, args)
    except OSError as error:
        if not _concerns(error, cfg.OUTPUT_DIR):
            raise
        raise Unwritable(
            f"OUTPUT_DIR={printable(cfg.OUTPUT_DIR)} cannot be written: {printable(error)}. Set"
            " it to a folder on a disk with room that you may write to."
        ) from error


def _concerns(error: OSError, folder: str) -> bool:
    """Whether an error is about writing to a folder: what it names lies there, or it names none."""
    if error.filename is None:
        return error.errno in FULL
    named, folder = os.path.abspath(os.fsdecode(error.filename)), os.path.abspath(folder)
    is_above = folder.startswith(named + os.sep) and error.errno != errno.EISDIR
    return named == folder or named.startswith(folder + os.sep) or is_above
