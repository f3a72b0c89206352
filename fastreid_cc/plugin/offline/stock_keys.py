"""fastreid's own config keys, with the comments its source has above them."""

from __future__ import annotations

import inspect
import re
from typing import Any

from fastreid.config import defaults, get_cfg

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


def stock_keys(ours: set[str]) -> list[tuple[str, Any, str]]:
    """(key, default, line) of every key of fastreid that is not among `ours`."""
    lines = comments(inspect.getsource(defaults))
    rows: list[tuple[str, Any, str]] = []

    def walk(node: Any, path: str) -> None:
        for name, value in node.items():
            key = f"{path}{name}"
            if hasattr(value, "items"):
                walk(value, f"{key}.")
            elif key not in ours:
                rows.append((key, value, lines.get(key, "")))

    walk(get_cfg(), "")
    return rows
