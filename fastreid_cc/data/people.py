"""Who is on an image, by a table of clusters or a rule over its path: for pairs of one person."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import BadConfig, printable
from .items import number
from .naming import Rule


def people_of(paths: Sequence[str], by: str, key: str) -> np.ndarray:
    """i64 [N], people numbered from 0; -1 where nothing is said of an image.

    Args:
        paths: of N images.
        by: a file .csv with the columns image and cluster, a negative one = unknown, as `clusters`
            and `label --csv` write them; or a rule over the path below the folder that holds all of
            the images (see `naming`).
        key: config key that says so, for messages.
    Raises:
        BadConfig: if there is no such file or rule, or it says nothing of any image.
    """
    if by.lower().endswith(".csv"):
        table, seen = _clusters(Path(by).expanduser(), f"{key}={by!r}"), list(paths)
        named = [table.get(os.path.abspath(path)) for path in paths]
    else:
        try:
            rule = Rule("person", by, key)
        except ValueError as error:
            raise BadConfig(str(error)) from error
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
        seen = [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
        named = [rule(path) for path in seen]
    known = np.array([name is not None for name in named])
    if not known.any():
        raise BadConfig(
            f"{key}={by!r} names nobody on {len(paths)} images, e.g. {printable(seen[0])!r}."
        )
    people = np.full(len(paths), -1, np.int64)
    people[known] = number(name for name in named if name is not None)[0]
    return people


def _clusters(file: Path, setting: str) -> dict[str, str]:
    """Absolute path -> cluster of a table; images of no cluster are left out."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return {
            os.path.abspath(row["image"]): row["cluster"]
            for row in rows
            if int(row["cluster"]) >= 0
        }
    except OSError as error:
        raise BadConfig(f"{setting}: {printable(error.strerror)}.") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise BadConfig(f"{setting} is no table with the columns image and cluster.") from error
