"""What can be wrong with the CC.SOURCES keys of a config; reads no image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def source_faults(cfg: Any, *, known_losses: Sequence[str], world_size: int = 1) -> list[str]:
    """Every fault of the sources' keys, each with its key; none where no source is named."""
    sources = cfg.CC.SOURCES
    if not sources.NAMES:
        return []
    found: list[str] = []
    _check_names(cfg, found)
    _check_choices(sources, known_losses, found)
    _check_batch(sources, world_size, found)
    _check_stages(cfg, found)
    return found


def _check_names(cfg: Any, found: list[str]) -> None:
    names = list(cfg.CC.SOURCES.NAMES)
    both = sorted(set(names) & set(cfg.DATASETS.NAMES))
    if both:
        found.append(
            f"{', '.join(both)}: in CC.SOURCES.NAMES and in DATASETS.NAMES. A target's labels are"
            " never read, so it cannot be a source too; name it once."
        )
    if len(set(names)) < len(names):
        found.append(f"CC.SOURCES.NAMES={tuple(names)} names a data set twice.")


def _check_choices(sources: Any, known_losses: Sequence[str], found: list[str]) -> None:
    for key, choices in (
        ("MODE", ("joint", "pretrain")),
        ("BN", ("shared", "domain", "rectified")),
    ):
        if sources[key] not in choices:
            found.append(f"CC.SOURCES.{key}={sources[key]!r} must be one of {', '.join(choices)}.")
    unknown = sorted(set(sources.LOSSES) - set(known_losses))
    if unknown:
        found.append(
            f"CC.SOURCES.LOSSES holds {', '.join(unknown)}; fastreid's own are"
            f" {', '.join(known_losses)}. Losses of this plug-in go to MODEL.LOSSES.NAME."
        )
    if sources.WEIGHT < 0:
        found.append(f"CC.SOURCES.WEIGHT={sources.WEIGHT} must be at least 0.")
    if sources.GATE_SCALE <= 0:
        found.append(f"CC.SOURCES.GATE_SCALE={sources.GATE_SCALE} must be above 0.")


def _check_batch(sources: Any, world_size: int, found: list[str]) -> None:
    batch, instances = sources.IMS_PER_BATCH, sources.NUM_INSTANCE
    if instances < 1 or batch < 1 or batch % (instances * world_size):
        found.append(
            f"CC.SOURCES.IMS_PER_BATCH={batch} must be a multiple of CC.SOURCES.NUM_INSTANCE="
            f"{instances} x {world_size} process(es), so that every step holds every domain."
        )
    elif batch // instances < 2:
        found.append(
            f"CC.SOURCES.IMS_PER_BATCH={batch} / CC.SOURCES.NUM_INSTANCE={instances} leaves one"
            " identity per step; at least 2 are needed."
        )


def _check_stages(cfg: Any, found: list[str]) -> None:
    sources, epochs = cfg.CC.SOURCES, cfg.CC.SOURCES.PRETRAIN_EPOCHS
    if not 0 <= epochs <= cfg.SOLVER.MAX_EPOCH:
        found.append(
            f"CC.SOURCES.PRETRAIN_EPOCHS={epochs} must lie between 0 and"
            f" SOLVER.MAX_EPOCH={cfg.SOLVER.MAX_EPOCH}."
        )
    if epochs > 0 and not sources.LOSSES:
        found.append(
            f"CC.SOURCES.PRETRAIN_EPOCHS={epochs} needs CC.SOURCES.LOSSES, e.g. CrossEntropyLoss."
        )
    if sources.MODE == "pretrain" and epochs == 0:
        found.append(
            "CC.SOURCES.MODE pretrain with CC.SOURCES.PRETRAIN_EPOCHS 0 would not use the sources."
            " Set PRETRAIN_EPOCHS; or, with a checkpoint that was trained on them (MODEL.WEIGHTS),"
            " leave CC.SOURCES.NAMES empty."
        )
    if sources.MODE == "pretrain" and sources.BN != "shared":
        found.append(
            f"CC.SOURCES.BN={sources.BN} needs CC.SOURCES.MODE joint: in mode pretrain no step"
            " holds source and target."
        )
    if sources.MODE == "joint" and not sources.LOSSES and not sources.IN_MEMORY:
        found.append(
            "CC.SOURCES.MODE joint with LOSSES () and IN_MEMORY False would not use the sources'"
            " labels; set one of the two."
        )
    if "MGN" in cfg.MODEL.META_ARCHITECTURE and (sources.LOSSES or sources.BN != "shared"):
        found.append(
            f"MODEL.META_ARCHITECTURE={cfg.MODEL.META_ARCHITECTURE} learns from sources with"
            " CC.SOURCES.LOSSES () and CC.SOURCES.BN shared only; ClusterContrast knows the rest."
        )
    if cfg.CC.WARMUP.EPOCHS > 0:
        found.append(
            f"CC.WARMUP.EPOCHS={cfg.CC.WARMUP.EPOCHS} beside CC.SOURCES.NAMES: sources take the"
            " place of the warm-up; set it to 0 (and CC.SOURCES.PRETRAIN_EPOCHS as you need)."
        )
