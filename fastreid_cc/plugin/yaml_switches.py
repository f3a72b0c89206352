"""Text keys with the choices `off` and `on` take them from YAML, which reads both as booleans."""

from __future__ import annotations

from typing import Any

from ..config import all_keys, get_key, walk
from .adasp_keys import translate_merges

TEXT = {False: "off", True: "on"}


def text_of_switches(other: Any) -> Any:
    """A copy of a config node with "off" or "on" where a key wants these words; else the node."""
    keys = all_keys()
    found = {
        key: TEXT[value]
        for key, value in walk(other)
        if isinstance(value, bool) and key in keys and TEXT[value] in keys[key].range.split(" | ")
    }
    if not found:
        return other
    other = other.clone()
    other.defrost()
    for key, text in found.items():
        node, leaf = key.rsplit(".", 1)
        get_key(other, node)[leaf] = text
    return other


translate_merges("merge_from_other_cfg", text_of_switches)
