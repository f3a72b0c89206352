"""What can be wrong with the keys of links and tracklets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..registry import CLUSTERERS, MEMORIES, argument_faults
from .keys import arguments, from_config

OFF = "set CC.LINKS.TRACKLETS False, CC.LINKS.OVERLAP False and leave CC.LINKS.FILE empty."


def links(cfg: Any, world_size: int) -> Iterator[str]:
    """Links have images to join and a clusterer that takes them."""
    node, cc = cfg.CC.LINKS, cfg.CC
    is_folder = "UnlabeledFolder" in cfg.DATASETS.NAMES
    if node.FILE and not is_folder:
        yield (
            f"CC.LINKS.FILE={node.FILE!r} names images below CC.FOLDER.ROOT, but DATASETS.NAMES="
            f"{tuple(cfg.DATASETS.NAMES)} holds no UnlabeledFolder."
        )
    if node.FILE and not Path(node.FILE).expanduser().is_file():
        yield f"CC.LINKS.FILE={node.FILE!r}: no such file, looked for at {Path.cwd()}."
    if cc.SAMPLER.TRACKLET_AWARE and is_folder and not cc.FOLDER.TRACKLET:
        yield (
            "CC.SAMPLER.TRACKLET_AWARE=True draws from different tracklets: say what they are in"
            " CC.FOLDER.TRACKLET."
        )
    by_tracklet = is_folder and cc.FOLDER.TRACKLET and (node.TRACKLETS or node.OVERLAP)
    if not (node.FILE or by_tracklet):
        return
    wanted = "CC.LINKS.FILE" if node.FILE else "CC.FOLDER.TRACKLET"
    name = cc.CLUSTER.NAME
    if name in CLUSTERERS and CLUSTERERS.get(name).consumes != "distances":
        others = [n for n in CLUSTERERS.names() if CLUSTERERS.get(n).consumes == "distances"]
        yield (
            f"{wanted} makes links, which CC.CLUSTER.NAME={name} cannot take, for it clusters"
            f" {CLUSTERERS.get(name).consumes}. Use one of {', '.join(others)}, or {OFF}"
        )
    if cc.MEMORY.NAME not in MEMORIES:
        return
    cls = MEMORIES.get(cc.MEMORY.NAME)
    if not argument_faults(cls, arguments(cfg, cls)) and not from_config(cfg, cls).needs_labels:
        yield (
            f"{wanted} makes links between what is clustered, but CC.MEMORY.NAME={cc.MEMORY.NAME}"
            f" clusters nothing: use another memory, or {OFF}"
        )
