"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place when the block ends.

    After an error, Ctrl-C or a full disk the old file is there as before, and the new one is
    removed. A killed process leaves `.NAME.part` behind, which the next write uses again; so two
    processes must not write one file at the same time.

    Args:
        path: in a folder that exists.
    Raises:
        OSError: naming `path`, if its folder takes no more.

    >>> import tempfile
    >>> name = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> with write_atomically(name) as part:
    ...     _ = part.write_text("image,label")
    >>> name.read_text()
    'image,label'
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        with part.open("r+b") as stream:
            os.fsync(stream.fileno())  # the name must not reach the disk before the bytes
        part.replace(path)
    except OSError as error:
        if error.filename not in (None, str(part)):
            raise  # about another file
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def make_folder_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder beside `path` to fill, which takes its name when the block ends.

    After an error or Ctrl-C the new folder is removed; a killed process leaves `.NAME-...` behind.
    Several processes may make one folder at the same time: the first to end wins.

    Args:
        path: must not exist, or be an empty folder; in a folder that exists.
    Raises:
        OSError: if `path` is there already when the block ends, or its folder takes no more.
    """
    path = Path(path)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}-", dir=path.parent))
    try:
        yield part
        part.chmod(0o755)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def folder_name(cluster: int, size: int) -> str:
    """What the folder of a cluster's images is called, e.g. "cluster_00012_34_images"."""
    return "outliers" if cluster < 0 else f"cluster_{cluster:05d}_{size}_images"
