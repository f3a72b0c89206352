"""What does not fit together among outliers, merges, teacher, soft losses, graph and styles."""

from __future__ import annotations

from typing import Any

from ..registry import LOSSES, MEMORIES

STYLE_MODES = ("off", "folder", "statistics")


def method_faults(cfg: Any, world_size: int = 1) -> list[str]:
    """Every such fault of a config, each with its key; reads no image."""
    found: list[str] = []
    _check_outliers(cfg, world_size, found)
    _check_merges(cfg, found)
    _check_teacher(cfg, found)
    _check_graph(cfg, found)
    _check_fusion(cfg, found)
    mode = cfg.CC.CAMSTYLE.MODE
    if mode not in STYLE_MODES:
        found.append(f"CC.CAMSTYLE.MODE={mode!r} must be one of {', '.join(STYLE_MODES)}.")
    return found


def _check_outliers(cfg: Any, world_size: int, found: list[str]) -> None:
    cc, group = cfg.CC, cfg.DATALOADER.NUM_INSTANCE * world_size
    extra, most = cc.SAMPLER.OUTLIERS, cfg.SOLVER.IMS_PER_BATCH - 2 * cfg.DATALOADER.NUM_INSTANCE
    if extra and (not 0 < extra <= most or extra % max(group, 1)):
        found.append(
            f"CC.SAMPLER.OUTLIERS={extra} must be a multiple of DATALOADER.NUM_INSTANCE x processes"
            f" = {group} and leave room for two clusters: at most {most}, at least 0."
        )
    if "AverageK" not in cfg.MODEL.LOSSES.NAME or not cfg.MODEL.LOSSES.AverageK.RESCUE:
        return
    if not extra:
        found.append(
            "MODEL.LOSSES.AverageK.RESCUE=True has no images to train on: CC.SAMPLER.OUTLIERS=0"
            f" puts no un-clustered ones into a batch. Set it, e.g. to {group}."
        )
    known = cc.MEMORY.NAME in MEMORIES  # if not, that is another fault
    drops = getattr(MEMORIES.get(cc.MEMORY.NAME), "outliers", "drop") == "drop" if known else True
    if cc.LABELS.OUTLIERS != "drop" or not drops:
        found.append(
            "MODEL.LOSSES.AverageK.RESCUE=True has nothing to rescue: with CC.LABELS.OUTLIERS="
            f"{cc.LABELS.OUTLIERS} and CC.MEMORY.NAME={cc.MEMORY.NAME} each un-clustered image is"
            " a class of its own."
        )


def _check_merges(cfg: Any, found: list[str]) -> None:
    name = cfg.CC.MEMORY.NAME
    if "merge_proposals" not in cfg.CC.REFINE.NAMES:
        return
    if name in ("instance", "camera_proxy"):
        found.append(
            f"CC.REFINE.NAMES holds merge_proposals, but the classes of CC.MEMORY.NAME={name} are"
            " no clusters; use cluster or hybrid."
        )
    if cfg.MODEL.META_ARCHITECTURE == "MutualContrast":
        found.append("CC.REFINE.NAMES holds merge_proposals, which two networks do not feed yet.")


def _check_teacher(cfg: Any, found: list[str]) -> None:
    node, taught = cfg.CC.TEACHER, []
    if not 0.0 <= node.MOMENTUM <= 1.0:
        found.append(f"CC.TEACHER.MOMENTUM={node.MOMENTUM} must lie in [0, 1].")
    for name in cfg.MODEL.LOSSES.NAME:
        if name in LOSSES and getattr(LOSSES.get(name), "needs_teacher", False):
            taught.append(name)
    if taught and not node.ENABLED:
        found.append(f"{', '.join(taught)} learn from a teacher; set CC.TEACHER.ENABLED True.")
    if taught and cfg.MODEL.META_ARCHITECTURE not in ("ClusterContrast", "MutualContrast"):
        found.append(
            f"{', '.join(taught)} need MODEL.META_ARCHITECTURE ClusterContrast or MutualContrast,"
            f" found {cfg.MODEL.META_ARCHITECTURE}."
        )


def _check_graph(cfg: Any, found: list[str]) -> None:
    if "GraphPositives" not in cfg.MODEL.LOSSES.NAME:
        return
    sources, memory = cfg.CC.SOURCES, cfg.CC.MEMORY
    if not sources.NAMES or sources.MODE != "joint" or sources.IN_MEMORY:
        found.append(
            "GraphPositives learns what a positive is from sources: set CC.SOURCES.NAMES,"
            " CC.SOURCES.MODE joint and CC.SOURCES.IN_MEMORY False."
        )
    if memory.NAME != "instance" or not memory.INSTANCE.SOURCE_ROWS:
        found.append(
            "GraphPositives needs CC.MEMORY.NAME instance with CC.MEMORY.INSTANCE.SOURCE_ROWS True."
        )
    size = cfg.MODEL.HEADS.EMBEDDING_DIM or cfg.MODEL.BACKBONE.FEAT_DIM
    if cfg.MODEL.LOSSES.GraphPositives.FEATURE_SIZE != size:
        found.append(
            "MODEL.LOSSES.GraphPositives.FEATURE_SIZE="
            f"{cfg.MODEL.LOSSES.GraphPositives.FEATURE_SIZE} must be the size of the features,"
            f" {size} (MODEL.HEADS.EMBEDDING_DIM, or MODEL.BACKBONE.FEAT_DIM if that is 0)."
        )


def _check_fusion(cfg: Any, found: list[str]) -> None:
    node = cfg.MODEL.HEADS.get("MDIF")
    if node is None or cfg.MODEL.HEADS.NAME != "MDIFHead":
        return
    if node.EVALUATE not in ("fused", "host"):
        found.append(f"MODEL.HEADS.MDIF.EVALUATE={node.EVALUATE!r} must be fused or host.")
    if node.WEIGHT < 0:
        found.append(f"MODEL.HEADS.MDIF.WEIGHT={node.WEIGHT} must be at least 0.")
    if cfg.MODEL.META_ARCHITECTURE not in ("ClusterContrast", "MutualContrast"):
        found.append(
            "MODEL.HEADS.NAME MDIFHead needs MODEL.META_ARCHITECTURE ClusterContrast or"
            f" MutualContrast, found {cfg.MODEL.META_ARCHITECTURE}."
        )
