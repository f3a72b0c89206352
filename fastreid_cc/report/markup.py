"""Small pieces of HTML. Whatever comes from a run goes through `esc` here and nowhere else."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from .pictures import Album


def esc(value: Any) -> str:
    """Text for HTML, quotes included; bytes of file names that are no text are shown as such."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"), quote=True)


def number(value: float | None, digits: int = 1) -> str:
    """A figure for people; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, kind: str = "") -> str:
    """A table that scrolls by itself on narrow screens. Cells are escaped; the first is a header.

    A cell may be a pair (text, attributes), attributes being HTML made here.
    """
    lines = []
    for first, *rest in rows:
        cells = [_cell(value) for value in rest]
        lines.append(f"<tr><th scope=row>{esc(first)}</th>{''.join(cells)}</tr>")
    top = "".join(f"<th scope=col>{esc(text)}</th>" for text in head)
    return (
        f'<div class="scroll" tabindex=0><table class="{kind}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    text, attributes = value if isinstance(value, tuple) else (value, "")
    return f"<td{' ' if attributes else ''}{attributes}>{esc(text)}</td>"


def details(summary: str, body: str) -> str:
    """A part that opens on a click."""
    return f"<details><summary>{esc(summary)}</summary>{body}</details>"


def section(anchor: str, title: str, *parts: str) -> str:
    """A chapter of the page."""
    return f'<section id="{anchor}"><h2>{esc(title)}</h2>{"".join(parts)}</section>'


def note(text: str) -> str:
    """A sentence about how to read what follows."""
    return f'<p class="note">{esc(text)}</p>'


def shot(album: Album, path: str, caption: str, kind: str = "", label: str = "") -> str:
    """An image with a caption below it.

    Args:
        album: encodes the image.
        path: the file; its name is shown when the mouse rests on it.
        caption: one short line.
        kind: "", "query", "right", "wrong", "odd" or "core": the frame.
        label: what the frame means, read out and shown with the file's name.
    """
    title = esc(f"{path}{f' – {label}' if label else ''}")
    uri = album.uri(path)
    picture = (
        f'<img src="{uri}" alt="{title}" title="{title}">'
        if uri
        else f'<span class="missing" title="{title}">no image</span>'
    )
    return f'<figure class="shot {kind}">{picture}<figcaption>{esc(caption)}</figcaption></figure>'
