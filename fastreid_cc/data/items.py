"""Items are (path, identity, camera) tuples, as fastreid has them; here they are put in order.

Stock data sets list their files by unsorted `glob`, so the same image may sit in another row on
another machine. Everything that is stored per row (features, labels, memories) needs one order:
sort once with `sort_items`, and row i is the same image everywhere. Identities of unlabelled items
exist for logging alone (`truth`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np

#: An identity or a camera, as the data set names it.
Label = str | int
Item = tuple[str, Label, Label]

#: Identity of an image nobody has named: "<this>_<row>", different for every image, so that a
#: stock trainer sees N single images rather than one big person.
UNKNOWN = "unknown"


def sort_items(items: Iterable[Sequence[Label]]) -> list[Item]:
    """Items ordered by path, separators counted as "/".

    Args:
        items: (path, identity, camera); longer tuples keep their further fields out.
    Returns:
        A new list. The order does not depend on the operating system, the locale or the order in
        which the file system lists a folder.
    Raises:
        ValueError: if a path occurs twice, for then a row would not name one image.

    Cost: O(N log N) string comparisons.
    """
    ordered = sorted(
        ((str(i[0]), i[1], i[2]) for i in items), key=lambda i: i[0].replace("\\", "/")
    )
    for before, after in zip(ordered, ordered[1:], strict=False):
        if before[0] == after[0]:
            raise ValueError(f"The image {after[0]} is listed twice; list each image once.")
    return ordered


def fingerprint(paths: Sequence[str]) -> str:
    """Says which images rows stand for: 16 hex digits of a hash over names and their order.

    Args:
        paths: N files, in data-set order; the folder that holds them all does not count, so a data
            set may move.

    Cost: O(N) characters.
    """
    names = [path.replace("\\", "/") for path in paths]
    base = len(os.path.commonprefix([name.rpartition("/")[0] + "/" for name in names]))
    base = names[0].rfind("/", 0, base) + 1 if names else 0
    text = "\0".join(name[base:] for name in names)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def number(values: Iterable[Label]) -> tuple[np.ndarray, list[Label]]:
    """Numbers values 0, 1, 2, … in sorted order.

    Args:
        values: N hashable values; integers and strings may be mixed.
    Returns:
        (i64 [N] in 0..K-1, the K distinct values in that order: integers first, by size, then
        strings, by code point).
    """
    listed = list(values)
    distinct = sorted(set(listed), key=lambda v: (isinstance(v, str), v))
    rank = {value: i for i, value in enumerate(distinct)}
    return np.fromiter((rank[v] for v in listed), np.int64, len(listed)), distinct


def cameras(items: Sequence[Sequence[Label]]) -> np.ndarray:
    """i64 [N], the camera of each item, numbered 0..C-1; all 0 where none is known."""
    return number(item[2] for item in items)[0]


def is_unknown(identity: Label) -> bool:
    """Whether an identity is a placeholder: -1 or "unknown_…"."""
    return identity == -1 or (isinstance(identity, str) and identity.startswith(f"{UNKNOWN}_"))


def truth(items: Sequence[Sequence[Label]]) -> np.ndarray | None:
    """True identities, for logged diagnostics only; training must never read them.

    Returns:
        i64 [N], identities numbered 0..K-1 in sorted order, -1 where an image has none; None where
        no image has one.
    """
    known = [not is_unknown(item[1]) for item in items]
    if not any(known):
        return None
    labels = np.full(len(items), -1, np.int64)
    labels[known] = number(item[1] for item, k in zip(items, known, strict=True) if k)[0]
    return labels


def cameras_in_words(cameras: np.ndarray) -> str:
    """How many cameras took images, i64 [N]; one stands for unknown ones too.

    >>> cameras_in_words(np.array([0, 3, 0])), cameras_in_words(np.array([0, 0]))
    ('2 cameras', 'one camera or unknown ones')
    """
    count = len(np.unique(cameras))
    return f"{count} cameras" if count > 1 else "one camera or unknown ones"
