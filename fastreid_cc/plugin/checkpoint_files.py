"""Reading checkpoint files: tensors only, and whether a file is whole."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import zipfile
from typing import Any

import numpy as np
import torch

from ..errors import MissingPackage, UnreadableFile

_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, pickled


def load_file(path: str, *also: type) -> Any:
    """`torch.load` on the CPU, of tensors, numpy arrays and plain values only.

    Args:
        path: of the file.
        also: further classes of plain values, e.g. argparse.Namespace, which runs nothing.

    Raises:
        FileNotFoundError: if there is no such file.
        UnreadableFile: if the file is damaged or holds anything else; the message names the file.
    """
    try:
        if path.endswith(".safetensors"):
            if importlib.util.find_spec("safetensors") is None:
                raise MissingPackage(
                    f"{path} needs the package safetensors: pip install safetensors"
                )
            return importlib.import_module("safetensors.torch").load_file(path)
        with _numpy_allowed(*also):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, MissingPackage):
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


def _numpy_allowed(*also: type) -> Any:
    core = getattr(np, "_core", None) or np.core
    reconstruct, scalar = core.multiarray._reconstruct, core.multiarray.scalar
    kinds = [type(np.dtype(k)) for k in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "bool")]
    old = [(f, f"numpy.core.multiarray.{f.__name__}") for f in (reconstruct, scalar)]
    return torch.serialization.safe_globals(
        [reconstruct, scalar, np.ndarray, np.dtype, *kinds, *old, *also]
    )


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
