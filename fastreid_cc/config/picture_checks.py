"""What can be wrong with the keys of how images are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..registry import MEMORIES, argument_faults
from .keys import arguments, from_config


def pictures(cfg: Any, world_size: int) -> Iterator[str]:
    """Images that keep their ratio have a frame to fit into."""
    for key in ("SIZE_TRAIN", "SIZE_TEST"):
        size = tuple(cfg.INPUT[key])
        if cfg.INPUT.KEEP_RATIO and (len(size) != 2 or min(size) < 1):
            yield f"INPUT.KEEP_RATIO=True needs a frame: set INPUT.{key}={size} to (height, width)."


def views(cfg: Any, world_size: int) -> Iterator[str]:
    """Generated views are alone in changing an image, and are fused where labels are made."""
    node, cc = cfg.CC.POSES, cfg.CC
    if (node.SHOW > 0 or node.FUSE != "off") and not node.FOLDER:
        yield (
            f"CC.POSES.SHOW={node.SHOW}, FUSE={node.FUSE} need views: name their folder in"
            " CC.POSES.FOLDER."
        )
    if not cc.ENABLED:
        if node.FUSE != "off":
            yield f"CC.POSES.FUSE={node.FUSE} clusters nothing where labels are true: set it off."
        return
    if node.SHOW > 0 and cc.CAMSTYLE.MODE != "off":
        yield (
            f"CC.POSES.SHOW={node.SHOW} and CC.CAMSTYLE.MODE={cc.CAMSTYLE.MODE} both put another"
            " picture in an image's place: leave one off."
        )
    if node.FUSE == "off" or cc.MEMORY.NAME not in MEMORIES:
        return
    cls = MEMORIES.get(cc.MEMORY.NAME)
    if argument_faults(cls, arguments(cfg, cls)):  # told elsewhere
        return
    memory = from_config(cfg, cls)
    if memory.persists or not memory.needs_labels:
        yield (
            f"CC.POSES.FUSE={node.FUSE} joins what is clustered, but CC.MEMORY.NAME="
            f"{cc.MEMORY.NAME} clusters nothing, or rows of its own: set it off."
        )
