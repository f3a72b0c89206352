"""The page of pairs to judge: one file; its only script saves the answers as a table."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..labeling.questions import Question
from .pictures import Album, Shot
from .rendering import render

MORE = 5  # other images shown of a group
#: (first, second, same): two names as in the table of answers, and "yes", "no" or "".
Row = tuple[str, str, str]


class Side(NamedTuple):
    """One of the two images asked about, and others that it stands for."""

    name: str
    what: str
    shown: Shot
    others: list[Shot]


def build_review(
    questions: Sequence[Question],
    *,
    paths: Sequence[str],
    names: Sequence[str],
    labels: np.ndarray,
    answered: Sequence[Row],
    title: str,
) -> str:
    """The page, about 60 kB a question.

    Args:
        questions: what to ask, in this order.
        paths: of N image files.
        names: of the same images, as the table of answers calls them.
        labels: i64 [N], to say what a question is about.
        answered: rows of earlier answers, which the saved table keeps above the new ones.
        title: heading.
    """
    album = Album()
    script = (Path(__file__).parent / "templates" / "review.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sizes = np.bincount(labels[labels >= 0])

    def side(rows: np.ndarray, is_part: bool) -> Side:
        cluster, count = int(labels[rows[0]]), len(rows)
        what = "an outlier" if cluster < 0 else f"cluster {cluster}, {count} images"
        if is_part:
            what = f"{count} of the {sizes[cluster]} images of cluster {cluster}"
        shown, *others = (album.shot(paths[row], "") for row in rows[: MORE + 1])
        return Side(names[rows[0]], what, shown, others)

    cards = [
        (asked.kind, [side(rows, asked.kind == "split") for rows in asked.groups])
        for asked in questions
    ]
    page = render(
        "review.html",
        title=title,
        cards=cards,
        first_line=len(answered) + 2,
        answered=json.dumps(list(answered)),
        script=script,
        digest=digest,
        unreadable=album.unreadable,
        refused=album.refused,
    )
    # bytes of a file name that are no text are shown as escapes
    return page.encode("utf-8", "backslashreplace").decode("utf-8")
