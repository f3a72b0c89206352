"""The templates of the page. They escape whatever they are given, unless it is markup already."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape


class Chapter(NamedTuple):
    """A chapter of the page: `anchor` is its id, `body` what stands below its heading."""

    anchor: str
    title: str
    body: Markup


def number(value: float | None, digits: int = 1) -> str:
    """A figure for people, e.g. "12,936.0"; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}"


def code(text: str) -> Markup:
    """Text with `these` parts as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["number"] = number
_TEMPLATES.filters["code"] = code
_TEMPLATES.tests["finite"] = math.isfinite


def render(template: str, **values: object) -> Markup:
    """A file of `templates/` filled in; its variables are `values`."""
    return Markup(_TEMPLATES.get_template(template).render(values))
