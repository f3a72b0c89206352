"""A folder that a config names below CC.SOURCES.FOLDERS gets its keys as the config is merged."""

from __future__ import annotations

import functools
from typing import Any

from fastreid.config import CfgNode

from ..config.source_folders import NODE, add_folders, refuse_value


def folders_of(other: Any) -> list[Any]:
    """Names of the folders in a config node that is to be merged."""
    for step in NODE.split("."):
        if not hasattr(other, "items"):
            return []  # yacs says what is wrong with it
        other = other.get(step, {})
    refuse_value("", other)
    for name, node in other.items():
        refuse_value(str(name), node)
    return list(other)


def folders_in(pairs: list[Any]) -> list[str]:
    """Names of the folders in KEY VALUE pairs."""
    found = []
    for key, value in zip(pairs[::2], pairs[1::2], strict=False):
        if key == NODE or str(key).startswith(f"{NODE}."):
            name, _, option = str(key)[len(NODE) + 1 :].partition(".")
            if not option:
                refuse_value(name, str(value))
            found.append(name)
    return found


def _before(method: str, names: Any) -> None:
    original = getattr(CfgNode, method)

    @functools.wraps(original)
    def merge(self: Any, other: Any) -> Any:
        found = names(other)
        if found:
            add_folders(self, found)
        return original(self, other)

    setattr(CfgNode, method, merge)


_before("merge_from_other_cfg", folders_of)
_before("merge_from_list", folders_in)
