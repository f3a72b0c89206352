"""CC.SOURCES.FOLDERS: labelled folders as sources, each a node of its own with CC.FOLDER's keys.

The node's name is the source's, `CC.SOURCES.FOLDERS.SHOP.ROOT /data/shop`: so bases, overrides and
the written config.yaml treat a folder as any other node, and a rule needs no quotes within quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ..data.naming import FolderOptions
from ..errors import BadConfig, printable
from .keys import from_config
from .signatures import argument_keys

NODE = "CC.SOURCES.FOLDERS"


def folder_class(name: str) -> type[FolderOptions]:
    """`FolderOptions` that are read from, and complain by, the node of one source."""

    class SourceFolder(FolderOptions):
        key = f"{NODE}.{name}"

    return SourceFolder


def source_names(cfg: Any) -> tuple[str, ...]:
    """The sources of a config in order: data sets as they are listed, then folders by name.

    A source's domain is its place here, counted from 1.
    """
    return (*cfg.CC.SOURCES.NAMES, *sorted(cfg.CC.SOURCES.FOLDERS))


def source_folders(cfg: Any) -> dict[str, FolderOptions]:
    """The folders that are sources, by name.

    Raises:
        ValueError: naming the keys that are wrong.
    """
    names = sorted(cfg.CC.SOURCES.FOLDERS)
    return {name: from_config(cfg, folder_class(name)) for name in names}


def add_folders(cfg: Any, names: Iterable[object]) -> None:
    """Gives a config the nodes of these folders, with CC.FOLDER's defaults; one it has stays.

    Raises:
        BadConfig: if a name is no name.
    """
    folders = cfg.CC.SOURCES.FOLDERS
    options = {key.rsplit(".", 1)[1]: value for key, value in argument_keys(FolderOptions).items()}
    for name in names:
        if not re.fullmatch(r"[A-Za-z]\w*", str(name)) or str(name) in options:
            raise BadConfig(
                f"{NODE}.{printable(name)}: no name for a folder. Give it one of letters, digits"
                f" and _, and its keys below it: {NODE}.SHOP.ROOT /data/shop"
            )
        if name not in folders:
            node = type(cfg)()
            for option, key in options.items():
                node[option] = key.default
            folders[name] = node


def refuse_value(name: str, value: object) -> None:
    """Raises BadConfig for a value in the place of a folder's node, or of all of them."""
    if not hasattr(value, "items"):
        node = f"{NODE}.{name}" if name else NODE
        raise BadConfig(
            f"{printable(node)}={printable(value)}: a folder has a name, and keys below it, e.g."
            f" {NODE}.SHOP.ROOT /data/shop {NODE}.SHOP.IDENTITY folder:0"
        )
