"""Which losses work in which epoch (CC.LOSS_STAGES), and what can be wrong with that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..registry import LOSSES

EXAMPLE = "((0, ('CrossEntropyLoss',)), (10, ('TripletLoss',)))"
#: Architectures that ask which losses are at work; Baseline and MGN become ours.
ARCHITECTURES = ("Baseline", "MGN", "ClusterContrast", "ClusterContrastMGN", "MutualContrast")


def losses_at(cfg: Any, epoch: int) -> tuple[str, ...]:
    """Names of the losses of MODEL.LOSSES.NAME that work in an epoch, counted from 0."""
    found = tuple(cfg.MODEL.LOSSES.NAME)
    for start, names in cfg.CC.LOSS_STAGES:
        if start <= epoch:
            found = tuple(names)
    return found


def is_mined(cfg: Any, epoch: int | None = None) -> bool:
    """Whether a loss that reads roles works in an epoch; in any epoch, without one.

    With a SCALE of 0 it does not: nothing is mined for it.
    """
    names = tuple(cfg.MODEL.LOSSES.NAME) if epoch is None else losses_at(cfg, epoch)
    mined = _of_roles(names)
    return any(cfg.MODEL.LOSSES[name].SCALE > 0 for name in mined)


def _of_roles(names: Sequence[str]) -> list[str]:
    return [name for name in names if name in LOSSES and LOSSES.get(name).needs_roles]


def loss_stages(cfg: Any, world_size: int) -> Iterator[str]:
    """Stages have epochs in order, losses that are built, and leave none of those out."""
    stages, built = cfg.CC.LOSS_STAGES, tuple(cfg.MODEL.LOSSES.NAME)
    if not stages:
        return
    if not isinstance(stages, (list, tuple)) or not all(map(_is_stage, stages)):
        yield (
            f"CC.LOSS_STAGES={stages!r} must be a list of (first epoch, (loss, ...)), e.g."
            f" {EXAMPLE}."
        )
        return
    starts = [stage[0] for stage in stages]
    if starts[0] != 0 or any(b <= a for a, b in zip(starts, starts[1:], strict=False)):
        yield f"CC.LOSS_STAGES begins at the epochs {starts}; they must begin with 0 and ascend."
    if starts[-1] >= cfg.SOLVER.MAX_EPOCH:
        yield (
            f"CC.LOSS_STAGES has a stage at epoch {starts[-1]}, but SOLVER.MAX_EPOCH="
            f"{cfg.SOLVER.MAX_EPOCH}: it would never begin."
        )
    named = {name for stage in stages for name in stage[1]}
    for name in sorted(named - set(built)):
        yield f"CC.LOSS_STAGES names {name}, MODEL.LOSSES.NAME={built} does not; add it there."
    for name in sorted(set(built) - named):
        yield f"MODEL.LOSSES.NAME holds {name}, which no stage of CC.LOSS_STAGES names."
    if cfg.MODEL.META_ARCHITECTURE not in ARCHITECTURES:
        yield (
            f"CC.LOSS_STAGES needs a MODEL.META_ARCHITECTURE among {', '.join(ARCHITECTURES)};"
            f" found {cfg.MODEL.META_ARCHITECTURE}."
        )


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, (list, tuple)) or len(stage) != 2:
        return False
    start, names = stage
    is_list = isinstance(names, (list, tuple)) and len(names) > 0
    return type(start) is int and is_list and all(isinstance(name, str) for name in names)


def mining(cfg: Any, world_size: int) -> Iterator[str]:
    """Mined triplets come in whole ones, from the features that their loss sees."""
    found = _of_roles(cfg.MODEL.LOSSES.NAME)
    loss = ", ".join(found)
    if found and not is_mined(cfg) and len(found) == len(cfg.MODEL.LOSSES.NAME):
        yield f"MODEL.LOSSES.{loss}.SCALE=0 leaves no loss at work; raise it."
    if not is_mined(cfg):
        return
    triplets, heads = cfg.CC.MINING.TRIPLETS, cfg.MODEL.HEADS
    if triplets % world_size:
        yield f"CC.MINING.TRIPLETS={triplets} must be a multiple of the {world_size} processes."
    if cfg.MODEL.META_ARCHITECTURE == "MutualContrast":
        yield f"{loss}: CC.MINING mines by one network; MutualContrast has two."
    if cfg.CC.ENABLED and cfg.CC.SOURCES.NAMES and cfg.CC.SOURCES.MODE == "joint":
        yield (
            f"{loss}: mined batches hold no images of sources; set CC.SOURCES.MODE pretrain, or"
            " leave CC.SOURCES.NAMES empty."
        )
    has_neck = heads.WITH_BNNECK or heads.EMBEDDING_DIM > 0
    if heads.NAME == "EmbeddingHead" and heads.NECK_FEAT == "before" and has_neck:
        yield (
            f"{loss} would learn from pooled features (MODEL.HEADS.NECK_FEAT=before), but CC.MINING"
            " compares the neck's output; set NECK_FEAT after."
        )
