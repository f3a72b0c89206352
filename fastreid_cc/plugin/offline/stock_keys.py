"""fastreid's own config keys, with the comments its source has above them."""

from __future__ import annotations

import inspect
import re

from fastreid.config import defaults, get_cfg

from ...config import Key, walk

_KEY = re.compile(r"_C\.([A-Z0-9_.]+) *=")


def comments(source: str) -> dict[str, str]:
    """Key -> the comment lines directly above its assignment, joined; keys without are left out."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in source.splitlines():
        text = line.strip()
        if text.startswith("#"):
            above.append(text.strip("# -"))
            continue
        match = _KEY.match(text)
        if match and any(above):
            found[match[1]] = " ".join(filter(None, above))
        above = []
    return found


def stock_keys() -> dict[str, Key]:
    """Every key of fastreid's config, those of the plug-in among them without help."""
    lines = comments(inspect.getsource(defaults))
    return {name: Key(value, lines.get(name, "")) for name, value in walk(get_cfg())}
