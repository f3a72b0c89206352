"""Checkpoints: whole files or none, safe loading, falling back to the newest whole one."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import zipfile
from typing import Any

import numpy as np
import torch

from fastreid_cc.errors import UnreadableFile, printable

from .imports import fastreid_module
from .output import write_whole
from .patching import assign

logger = logging.getLogger("fastreid.cc.compat")
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, pickled


def save_whole_checkpoints() -> None:
    """`Checkpointer.save` and `tag_last_checkpoint`.

    Breaks: a process that is killed while it writes leaves half a checkpoint, or an empty
    `last_checkpoint`, and the job cannot be resumed. All versions. Does: writes to a file beside
    and renames it; what a full disk cut short is removed. Paths with a "://" handler are written as
    in stock. Test: test_compat_checkpoint.py. May go: when fastreid writes atomically.
    """
    checkpointer = fastreid_module("utils.checkpoint").Checkpointer
    stock_save, stock_tag = checkpointer.save, checkpointer.tag_last_checkpoint

    @functools.wraps(stock_save)
    def save(self: Any, name: str, **kwargs: Any) -> None:
        if not self.save_dir or not self.save_to_disk:
            return
        if "://" in self.save_dir:
            stock_save(self, name, **kwargs)
            return
        data = {"model": self.model.state_dict()}
        data.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        data.update(kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        write_whole(path, lambda stream: torch.save(data, stream))
        self.tag_last_checkpoint(f"{name}.pth")

    @functools.wraps(stock_tag)
    def tag_last_checkpoint(self: Any, last_filename_basename: str) -> None:
        if "://" in self.save_dir:
            stock_tag(self, last_filename_basename)
            return
        tag = os.path.join(self.save_dir, "last_checkpoint")
        write_whole(tag, lambda stream: stream.write(last_filename_basename.encode()))

    assign(checkpointer, "save", save)
    assign(checkpointer, "tag_last_checkpoint", tag_last_checkpoint)


def load_tensors_only() -> None:
    """`Checkpointer._load_file`.

    Breaks: torch >= 2.6 loads tensors and plain values only, and refuses the rest with a message
    that advises to switch the protection off; older torch runs whatever code a file holds. Does:
    `weights_only=True` everywhere, numpy arrays and numbers included, and a message that names the
    file and the object refused. Test: test_compat_checkpoint.py. May go: when fastreid does so.
    """

    def _load_file(self: Any, f: str) -> Any:
        return load_file(f)

    assign(fastreid_module("utils.checkpoint").Checkpointer, "_load_file", _load_file)


def load_file(path: str) -> Any:
    """`torch.load` on the CPU, of tensors, numpy arrays and plain values only.

    Raises:
        FileNotFoundError: if there is no such file.
        UnreadableFile: if the file is damaged or holds anything else; the message names the file.
    """
    try:
        with _numpy_allowed():
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a torn file may raise anything
        refused = re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", str(error))
        if refused is None:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UnreadableFile(f"{path} is damaged or is no checkpoint: {text}") from error
        raise UnreadableFile(
            f"{path} holds more than tensors and plain values: {refused[1]}. It is not loaded, "
            "because such a file could run code. If you trust it, rewrite it once: "
            "torch.save({'model': torch.load(path, weights_only=False)['model']}, path)."
        ) from error


def _numpy_allowed() -> Any:
    allow = getattr(torch.serialization, "safe_globals", None)
    if allow is None:  # torch < 2.5
        return contextlib.nullcontext()
    core = getattr(np, "_core", None) or np.core
    reconstruct, scalar = core.multiarray._reconstruct, core.multiarray.scalar
    kinds = [type(np.dtype(k)) for k in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "bool")]
    old = [(f, f"numpy.core.multiarray.{f.__name__}") for f in (reconstruct, scalar)]
    return allow([reconstruct, scalar, np.ndarray, np.dtype, *kinds, *old])


def is_whole(path: str) -> bool:
    """Whether a file holds what was written: its end is there, and the checksums of its parts fit.

    Cost: reads the file once; asked again of the same file it remembers.
    """
    if not os.path.isfile(path):
        return False
    found = os.stat(path)
    return _is_whole(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=64)
def _is_whole(path: str, _time: int, _size: int) -> bool:
    if zipfile.is_zipfile(path):  # its directory, the last part, is there
        return _checksums_fit(path)
    with open(path, "rb") as stream:  # written before torch 1.6, or not by torch at all
        if not stream.read(len(_OLD_FORMAT)) == _OLD_FORMAT:
            return False
    try:
        load_file(path)
    except UnreadableFile as error:
        return "holds more than" in str(error)
    return True


def _checksums_fit(path: str) -> bool:
    """Of all parts of a zip file. torch compares none when it loads: garbage would train on."""
    if not getattr(torch.serialization, "get_crc32_options", lambda: True)():
        return True  # torch was told to write none
    try:
        with zipfile.ZipFile(path) as parts:
            return parts.testzip() is None
    except Exception:  # noqa: BLE001  zipfile raises anything on damaged headers
        return False


def resume_from_the_newest_whole_checkpoint() -> None:
    """`Checkpointer.get_checkpoint_file` and `has_checkpoint`.

    Breaks: a torn newest checkpoint, or an empty or stale `last_checkpoint`, makes `--resume` fail
    for good; bytes that changed inside a checkpoint are loaded as weights; without
    `last_checkpoint` the job starts anew over the checkpoints that are there. All versions. Does:
    falls back to the newest whole .pth in the folder (without `last_checkpoint`: of those fastreid
    names model_0000.pth and so on), with a warning; without any, the job starts anew. Test:
    test_compat_checkpoint.py. May go: never, files can tear in other ways.
    """
    checkpointer = fastreid_module("utils.checkpoint").Checkpointer
    stock_file, stock_has = checkpointer.get_checkpoint_file, checkpointer.has_checkpoint

    @functools.wraps(stock_file)
    def get_checkpoint_file(self: Any) -> str:
        if "://" in self.save_dir:
            return stock_file(self)
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

    @functools.wraps(stock_has)
    def has_checkpoint(self: Any) -> bool:
        if "://" in self.save_dir:
            return bool(stock_has(self))
        return bool(self.get_checkpoint_file())

    assign(checkpointer, "get_checkpoint_file", get_checkpoint_file)
    assign(checkpointer, "has_checkpoint", has_checkpoint)


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
