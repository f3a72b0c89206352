"""Finds images that cannot be read before training finds them in mid-epoch."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ..errors import MissingData, printable

logger = logging.getLogger("fastreid.cc.checks")

_SHOWN = 20  # in the log
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # whatever the name says


class UnreadableImages(MissingData, ValueError):
    """So many images of a folder cannot be read that something else is wrong with it."""


@lru_cache(maxsize=1_000_000)
def _fault(path: str, size: int, modified: int) -> str | None:
    """Why a file is no image, or None; remembered per process, size and time of change."""
    if size == 0:
        return "empty file"
    try:
        with warnings.catch_warnings(), Image.open(path, formats=_FORMATS) as image:
            warnings.simplefilter("ignore")
            image.draft("RGB", (1, 1))  # JPEG: decodes an eighth of the size, still reads it all
            image.load()
            return None if min(image.size) > 0 else "no pixels"
    except Image.DecompressionBombError:
        return "too many pixels"
    except Exception as error:  # decoders raise whatever they like on damaged files
        return f"{type(error).__name__}: {error}".replace(path, Path(path).name)[:160]


def fault(path: str) -> str | None:
    """Why an image cannot be read, in words; None if it can.

    Cost: decodes the file, 0.1 to 1 ms for a crop; once per process while the file is unchanged.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        return error.strerror or str(error)
    return _fault(path, status.st_size, status.st_mtime_ns)


def drop_bad(paths: Sequence[str], max_share: float, key: str, root: Path) -> set[str]:
    """The paths of `paths` that can be read; each other one is reported with its reason.

    Args:
        paths: image files.
        max_share: above this share of bad images UnreadableImages is raised.
        key: config key of that share, for the message.
        root: for the message.

    A bar shows the progress on a terminal.
    """
    workers = min(8, (os.cpu_count() or 1) + 1)
    with ThreadPoolExecutor(workers) as pool:
        bar = tqdm(
            pool.map(fault, paths, chunksize=64),
            "checking images",
            total=len(paths),
            disable=not sys.stderr.isatty() or len(paths) < 2000,
        )
        bad = {path: why for path, why in zip(paths, bar, strict=True) if why is not None}
    if bad:
        lines = [f"{len(bad)} of {len(paths)} images in {printable(root)} cannot be read:"]
        lines += [f"  {printable(path)}: {printable(why)}" for path, why in bad.items()][:_SHOWN]
        if len(bad) > _SHOWN:
            lines.append(f"  … and {len(bad) - _SHOWN} more")
        report = "\n".join(lines)
        if len(bad) > max_share * len(paths):
            few = "\n".join(lines[:4])
            raise UnreadableImages(f"{few}\nThat is more than {key}={max_share} allows.")
        logger.warning("%s\nThey are left out.", report)
    return set(paths) - set(bad)
