"""What losses ask of a config: batches, memories, a teacher, sizes, and of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..losses.base import Loss
from ..registry import LOSSES
from .signatures import STOCK_LOSSES
from .source_folders import source_names

#: Takes a config and the number of processes, gives one message for each fault.
Check = Callable[[Any, int], Iterator[str]]


def losses(cfg: Any, world_size: int) -> Iterator[str]:
    """At least one loss works without identities, none needs them."""
    names = cfg.MODEL.LOSSES.NAME
    if set(names) <= set(STOCK_LOSSES):
        yield (
            f"MODEL.LOSSES.NAME={tuple(names)} holds no loss of this plug-in;"
            " label-free training needs one, e.g. MemoryContrast. Known:"
            f" {', '.join(LOSSES.names())}."
        )
    if "CrossEntropyLoss" in names:
        yield (
            "MODEL.LOSSES.NAME holds CrossEntropyLoss, which needs a classifier and identities;"
            " without labels use MemoryContrast. For labelled sources it goes to CC.SOURCES.LOSSES."
        )


def warm_up(cfg: Any, world_size: int) -> Iterator[str]:
    """The warm-up has losses of this plug-in, and those that compare views are in it alone."""
    node, known = cfg.CC.WARMUP, [name for name in cfg.MODEL.LOSSES.NAME if name in LOSSES]
    for name in known:
        if LOSSES.get(name).needs_views:
            yield (
                f"MODEL.LOSSES.NAME holds {name}, which compares views of an image: they are drawn"
                " in the warm-up alone. Name it in CC.WARMUP.LOSSES."
            )
    if node.EPOCHS <= 0:
        return
    stock = ", ".join(name for name in node.LOSSES if name in STOCK_LOSSES)
    if stock or not node.LOSSES:
        found = f"{stock}, fastreid's own" if stock else "no loss"
        yield f"CC.WARMUP.LOSSES holds {found}; name losses of this plug-in: MemoryContrast, AMDIM."
    losses = {name: LOSSES.get(name) for name in node.LOSSES if name in LOSSES}
    seeing = ", ".join(name for name, loss in losses.items() if loss.needs_views)
    if seeing and node.VIEWS < 2:
        yield f"{seeing} in CC.WARMUP.LOSSES compares views; CC.WARMUP.VIEWS={node.VIEWS}, set 2."
    if seeing and cfg.MODEL.META_ARCHITECTURE not in ("ClusterContrast", "MutualContrast"):
        yield (
            f"{seeing} in CC.WARMUP.LOSSES needs MODEL.META_ARCHITECTURE ClusterContrast or"
            f" MutualContrast, found {cfg.MODEL.META_ARCHITECTURE}."
        )
    taught = ", ".join(name for name, loss in losses.items() if loss.needs_teacher)
    if taught:
        yield f"{taught} in CC.WARMUP.LOSSES learn from a teacher; the warm-up has none yet."


def outliers(cfg: Any, world_size: int) -> Iterator[str]:
    """Un-clustered images fill whole groups of a batch, and are there where a loss wants them."""
    cc, group = cfg.CC, cfg.DATALOADER.NUM_INSTANCE * world_size
    extra = cc.SAMPLER.OUTLIERS_PER_BATCH
    most = cfg.SOLVER.IMS_PER_BATCH - 2 * cfg.DATALOADER.NUM_INSTANCE
    if extra > 0 and (extra > most or extra % max(group, 1)):
        yield (
            f"CC.SAMPLER.OUTLIERS_PER_BATCH={extra} must be a multiple of DATALOADER.NUM_INSTANCE x"
            f" processes = {group} and leave room for two clusters: at most {most}."
        )
    losses = cfg.MODEL.LOSSES
    wanting = [
        ("AverageK.RESCUE=True", "AverageK", losses.AverageK.RESCUE),
        ("MpRL", "MpRL", losses.MpRL.OVER == "clusters"),
    ]
    for what, name, wants in wanting:
        if name in losses.NAME and wants:
            yield from _without_outliers(cfg, f"MODEL.LOSSES.{what}", group)


def _without_outliers(cfg: Any, what: str, group: int) -> Iterator[str]:
    """Why a loss of un-clustered images would never see one."""
    cc = cfg.CC
    if not cc.SAMPLER.OUTLIERS_PER_BATCH:
        yield (
            f"{what} has no images to train on:"
            " CC.SAMPLER.OUTLIERS_PER_BATCH=0 puts no un-clustered ones into a batch. Set it, e.g."
            f" to {group}."
        )
    keeps = cc.MEMORY.NAME == "instance"
    keeps |= cc.MEMORY.NAME == "hybrid" and cc.MEMORY.HYBRID.OUTLIERS != "drop"
    if cc.LABELS.OUTLIERS != "drop" or keeps:
        yield (
            f"{what} has nothing to rescue: with CC.LABELS.OUTLIERS="
            f"{cc.LABELS.OUTLIERS} and CC.MEMORY.NAME={cc.MEMORY.NAME} each un-clustered image is"
            " a class of its own."
        )


def graded_classes(cfg: Any, world_size: int) -> Iterator[str]:
    """MpRL over labelled classes has a classifier, and one batch norm for all images."""
    sources, name = cfg.CC.SOURCES, "MODEL.LOSSES.MpRL.OVER=classes"
    if "MpRL" not in cfg.MODEL.LOSSES.NAME or cfg.MODEL.LOSSES.MpRL.OVER != "classes":
        return
    has_classifier = source_names(cfg) and "CrossEntropyLoss" in sources.LOSSES
    if sources.MODE != "joint" or not has_classifier:
        yield (
            f"{name} grades the classes of labelled sources: set CC.SOURCES.NAMES or FOLDERS,"
            " CC.SOURCES.MODE joint, and CrossEntropyLoss in CC.SOURCES.LOSSES."
        )
    if sources.BN != "shared":
        yield (
            f"{name} with CC.SOURCES.BN={sources.BN}: evaluation would use the batch norm of the"
            " unlabelled images alone. Set it shared."
        )
    if cfg.MODEL.HEADS.NAME != "ClusterContrastHead":
        yield f"{name} needs MODEL.HEADS.NAME ClusterContrastHead, found {cfg.MODEL.HEADS.NAME}."


def merges(cfg: Any, world_size: int) -> Iterator[str]:
    """Merge proposals come from one network whose memory's classes are the clusters."""
    name = cfg.CC.MEMORY.NAME
    if "merge_proposals" not in cfg.CC.REFINE.NAMES:
        return
    if name in ("instance", "camera_proxy"):
        yield (
            f"CC.REFINE.NAMES holds merge_proposals, but the classes of CC.MEMORY.NAME={name} are"
            " no clusters; use cluster or hybrid."
        )
    if cfg.MODEL.META_ARCHITECTURE == "MutualContrast":
        yield "CC.REFINE.NAMES holds merge_proposals, which two networks do not feed yet."


def classifier(cfg: Any, world_size: int) -> Iterator[str]:
    """Rows that learn by gradient learn from the loss that the network learns from."""
    contrast = cfg.MODEL.LOSSES.MemoryContrast
    if cfg.CC.MEMORY.NAME == "classifier" and "MemoryContrast" in cfg.MODEL.LOSSES.NAME:
        for name, off in (("PROBABILITY_FLOOR", 0.0), ("CAMERA_ENTROPY", False)):
            if contrast[name]:
                yield (
                    f"MODEL.LOSSES.MemoryContrast.{name}={contrast[name]}: the rows of"
                    f" CC.MEMORY.NAME classifier learn without it; set it {off}."
                )


def contrast(cfg: Any, world_size: int) -> Iterator[str]:
    """Losses that learn from a teacher have one; they and MDIFHead are in our architectures."""
    names = [name for name in cfg.MODEL.LOSSES.NAME if name in LOSSES]
    taught = ", ".join(name for name in names if LOSSES.get(name).needs_teacher)
    if taught and not cfg.CC.TEACHER.ENABLED:
        yield f"{taught} learn from a teacher; set CC.TEACHER.ENABLED True."
    needy = [f"{taught} need"] if taught else []
    if cfg.MODEL.HEADS.NAME == "MDIFHead":
        needy.append("MODEL.HEADS.NAME MDIFHead needs")
    found, known = cfg.MODEL.META_ARCHITECTURE, ("ClusterContrast", "MutualContrast")
    if cfg.MODEL.HEADS.TEST_FEAT == "pooled" and found != "Baseline":  # that becomes one of ours
        needy.append("MODEL.HEADS.TEST_FEAT pooled needs")
    if found not in known:
        for what in needy:
            yield f"{what} MODEL.META_ARCHITECTURE {' or '.join(known)}, found {found}."


def graph(cfg: Any, world_size: int) -> Iterator[str]:
    """GraphPositives has sources and their rows in the memory."""
    if "GraphPositives" not in cfg.MODEL.LOSSES.NAME:
        return
    sources, memory = cfg.CC.SOURCES, cfg.CC.MEMORY
    if not source_names(cfg) or sources.MODE != "joint" or sources.IN_MEMORY:
        yield (
            "GraphPositives learns what a positive is from sources: set CC.SOURCES.NAMES,"
            " CC.SOURCES.MODE joint and CC.SOURCES.IN_MEMORY False."
        )
    if memory.NAME != "instance" or not memory.INSTANCE.SOURCE_ROWS:
        yield "GraphPositives needs CC.MEMORY.NAME instance, CC.MEMORY.INSTANCE.SOURCE_ROWS True."


def feature_sizes(cfg: Any, world_size: int) -> Iterator[str]:
    """Losses with weights are built for features of the network's size."""
    size = cfg.MODEL.HEADS.EMBEDDING_DIM or cfg.MODEL.BACKBONE.FEAT_DIM
    size *= 8 if "MGN" in cfg.MODEL.META_ARCHITECTURE else 1
    warm_up = cfg.CC.WARMUP.LOSSES if cfg.CC.WARMUP.EPOCHS > 0 else ()
    for name in dict.fromkeys((*cfg.MODEL.LOSSES.NAME, *warm_up)):
        given = cfg.MODEL.LOSSES[name].get("FEATURE_SIZE", size) if name in LOSSES else size
        if given != size:
            yield (
                f"MODEL.LOSSES.{name}.FEATURE_SIZE={given} must be the size of the features,"
                f" {size} (MODEL.HEADS.EMBEDDING_DIM, or MODEL.BACKBONE.FEAT_DIM if that is 0;"
                " MGN joins eight)."
            )


def refining(cfg: Any, world_size: int) -> Iterator[str]:
    """What refines features has clusters to refine for; selected rows are there to select from."""
    names, memory, labels = cfg.MODEL.LOSSES.NAME, cfg.CC.MEMORY.NAME, cfg.CC.LABELS
    known = [name for name in names if name in LOSSES]
    losses = [n for n in known if LOSSES.get(n).refine_features is not Loss.refine_features]
    smooth = labels.SMOOTH_NEIGHBORS
    found = ", ".join([f"CC.LABELS.SMOOTH_NEIGHBORS={smooth}"] * (smooth > 0) + losses)
    if found and memory == "instance":
        yield f"{found}: refined features are clustered, and CC.MEMORY.NAME=instance clusters none."
    if losses and cfg.MODEL.META_ARCHITECTURE == "MutualContrast":
        yield f"{', '.join(losses)}: refines one network's features; MutualContrast has two."
    if labels.LOG_PLAIN and not found:
        yield (
            "CC.LABELS.LOG_PLAIN=True, but nothing refines the features that are clustered; set it"
            " False."
        )
    if "SelectiveContrast" in names and memory != "selective":
        yield f"SelectiveContrast needs CC.MEMORY.NAME selective, found {memory}."


LOSS_CHECKS: tuple[Check, ...] = (losses, outliers, merges, classifier, contrast, warm_up, graph)
LOSS_CHECKS += (feature_sizes, refining, graded_classes)
