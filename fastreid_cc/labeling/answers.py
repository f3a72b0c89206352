"""Answers of a person who was shown pairs of images: the same individual, or not."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ..errors import BadConfig, printable

KEY = "CC.LINKS.FILE"
COLUMNS = ("first", "second", "same")
SHOWN = 5  # pairs in a message


class Answers(NamedTuple):
    """Pairs of rows that somebody called the same individual, and pairs that are not.

    Args:
        same: i64 [A, 2].
        other: i64 [B, 2]; none lies in a chain of `same`.
        unknown: images of the table that are not among the N; their pairs are left out.
    """

    same: np.ndarray
    other: np.ndarray
    unknown: Sequence[str] = ()


def names_below(root: str | Path, paths: Iterable[str]) -> list[str]:
    """Paths relative to a folder, with "/", as a table of answers names them."""
    return [Path(os.path.relpath(path, root)).as_posix() for path in paths]


def read_answers(file: str | Path, names: Sequence[str]) -> Answers:
    """Reads a table with the columns first, second and same.

    Args:
        file: CSV; `first` and `second` are paths as in `names`, `same` is "yes", "no" or "" (not
            answered, left out).
        names: of N images, see `names_below`; below CC.FOLDER.ROOT.
    Raises:
        BadConfig: if there is no such table, a word in it is none of these, no image of it is
            known, or its answers contradict one another: the pairs are listed.
    """
    setting = f"{KEY}={printable(file)}"
    row_of = {name: row for row, name in enumerate(names)}
    found: dict[str, list[tuple[int, int]]] = {"yes": [], "no": [], "": []}
    unknown: dict[str, None] = {}
    lines = _lines(Path(file).expanduser(), setting)
    for number, (first, second, same) in enumerate(lines, 2):
        if same not in found:
            raise BadConfig(
                f"{setting}, line {number}: same={printable(same)!r} must be yes, no, or empty."
            )
        missing = [name for name in (first, second) if name not in row_of]
        unknown |= dict.fromkeys(missing)
        if not missing:
            found[same].append((row_of[first], row_of[second]))
    if not any(found.values()):
        raise BadConfig(
            f"{setting}: none of its {len(lines)} pairs is of two training images. Paths are those"
            f" below CC.FOLDER.ROOT, e.g. {printable(next(iter(names), ''))!r}."
        )
    pairs = {same: np.array(rows, np.int64).reshape(-1, 2) for same, rows in found.items()}
    answers = Answers(pairs["yes"], pairs["no"], list(unknown))
    _refuse_contradiction(answers, names, setting)
    return answers


def _lines(file: Path, setting: str) -> list[tuple[str, str, str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise BadConfig(f"{setting} is no table with the columns {', '.join(COLUMNS)}.")
            cells = [[(row[name] or "").strip() for name in COLUMNS] for row in rows]
    except OSError as error:
        raise BadConfig(f"{setting}: {printable(error.strerror)}.") from error
    except (UnicodeError, csv.Error) as error:
        raise BadConfig(f"{setting} is no table in UTF-8: {printable(error)}.") from error
    return [(first, second, same.lower()) for first, second, same in cells]


def chains(pairs: np.ndarray, images: int) -> np.ndarray:
    """i64 [N], the chain of pairs i64 [A, 2] that each image is in, from 0."""
    shape = (images, images)
    graph = sp.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=shape)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _refuse_contradiction(answers: Answers, names: Sequence[str], setting: str) -> None:
    chain = chains(answers.same, len(names))
    wrong = answers.other[chain[answers.other[:, 0]] == chain[answers.other[:, 1]]]
    if len(wrong):
        pairs = "; ".join(f"{printable(names[a])}, {printable(names[b])}" for a, b in wrong[:SHOWN])
        more = f"; and {len(wrong) - SHOWN} more" * (len(wrong) > SHOWN)
        raise BadConfig(
            f"{setting}: {len(wrong)} pairs with the answer no are the same by a chain of yes:"
            f" {pairs}{more}. Correct one answer of each chain."
        )
