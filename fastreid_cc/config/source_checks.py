"""What does not fit together among the CC.SOURCES keys of a config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..registry import LOSSES
from .source_folders import source_folders, source_names


def source_faults(cfg: Any, world_size: int) -> Iterator[str]:
    """Every fault of the sources' keys; none where no source is named."""
    if source_names(cfg):
        for check in (names, folders, batch, stages, modes, losses, validation):
            yield from check(cfg, world_size)


def names(cfg: Any, world_size: int) -> Iterator[str]:
    """Each data set is named once; one target where domains are kept apart."""
    listed = source_names(cfg)
    both = sorted(set(cfg.CC.SOURCES.NAMES) & set(cfg.DATASETS.NAMES))
    if both:
        yield (
            f"{', '.join(both)}: in CC.SOURCES.NAMES and in DATASETS.NAMES. A target's labels are"
            " never read, so it cannot be a source too; name it once."
        )
    if len(set(listed)) < len(listed):
        yield f"CC.SOURCES {listed} names a data set twice, in NAMES and FOLDERS."
    targets, sources = tuple(cfg.DATASETS.NAMES), cfg.CC.SOURCES
    if len(targets) > 1 and sources.MODE == "joint" and sources.BN != "shared":
        yield (
            f"DATASETS.NAMES={targets} with CC.SOURCES.BN={sources.BN}: the sets would be one"
            " target with one batch norm and one labelling. Make one run for each target; or set"
            " CC.SOURCES.BN shared and train on them as one target."
        )


def folders(cfg: Any, world_size: int) -> Iterator[str]:
    """The rules of source folders are rules."""
    try:
        source_folders(cfg)
    except ValueError as error:
        yield str(error)


def batch(cfg: Any, world_size: int) -> Iterator[str]:
    """A step holds whole identities of each source, equally many in each process."""
    images, instances = cfg.CC.SOURCES.IMS_PER_BATCH, cfg.CC.SOURCES.NUM_INSTANCE
    if images < 1 or instances < 1:
        return
    if cfg.CC.SOURCES.SAMPLER == "uniform" and instances != 1:
        yield (
            f"CC.SOURCES.SAMPLER=uniform draws single images, CC.SOURCES.NUM_INSTANCE={instances}"
            " asks for several of an identity. Set it to 1, or SAMPLER to identity."
        )
    if images % (instances * world_size):
        yield (
            f"CC.SOURCES.IMS_PER_BATCH={images} must be a multiple of CC.SOURCES.NUM_INSTANCE="
            f"{instances} x {world_size} process(es), so that every step holds every domain."
        )
    elif images // instances < 2:
        yield (
            f"CC.SOURCES.IMS_PER_BATCH={images} / CC.SOURCES.NUM_INSTANCE={instances} leaves one"
            " identity per step; at least 2 are needed."
        )


def stages(cfg: Any, world_size: int) -> Iterator[str]:
    """The epochs of source labels fit into the training and have something to learn."""
    epochs, most = cfg.CC.SOURCES.PRETRAIN_EPOCHS, cfg.SOLVER.MAX_EPOCH
    if epochs > most:
        yield f"CC.SOURCES.PRETRAIN_EPOCHS={epochs} must not exceed SOLVER.MAX_EPOCH={most}."
    if epochs > 0 and not cfg.CC.SOURCES.LOSSES:
        yield f"CC.SOURCES.PRETRAIN_EPOCHS={epochs} needs CC.SOURCES.LOSSES, e.g. CrossEntropyLoss."
    if cfg.CC.SOURCES.STEPS and cfg.SOLVER.SCHED != "MultiStepLR":
        yield (
            f"CC.SOURCES.STEPS={tuple(cfg.CC.SOURCES.STEPS)} has no effect with SOLVER.SCHED="
            f"{cfg.SOLVER.SCHED}: leave it empty, or set SOLVER.SCHED MultiStepLR."
        )
    if cfg.CC.WARMUP.EPOCHS > 0:
        yield (
            f"CC.WARMUP.EPOCHS={cfg.CC.WARMUP.EPOCHS} beside CC.SOURCES: sources take the"
            " place of the warm-up; set it to 0 (and CC.SOURCES.PRETRAIN_EPOCHS as you need)."
        )


def modes(cfg: Any, world_size: int) -> Iterator[str]:
    """The mode uses the sources, and what is asked for beside it is possible in it."""
    sources = cfg.CC.SOURCES
    if sources.MODE == "pretrain" and sources.PRETRAIN_EPOCHS == 0:
        yield (
            "CC.SOURCES.MODE pretrain with CC.SOURCES.PRETRAIN_EPOCHS 0 would not use the sources."
            " Set PRETRAIN_EPOCHS; or, with a checkpoint that was trained on them (MODEL.WEIGHTS),"
            " leave CC.SOURCES.NAMES and FOLDERS empty."
        )
    if sources.MODE == "pretrain" and sources.BN != "shared":
        yield (
            f"CC.SOURCES.BN={sources.BN} needs CC.SOURCES.MODE joint: in mode pretrain no step"
            " holds source and target."
        )
    if sources.MODE == "joint" and not sources.LOSSES and not sources.IN_MEMORY:
        yield (
            "CC.SOURCES.MODE joint with LOSSES () and IN_MEMORY False would not use the sources'"
            " labels; set one of the two."
        )
    if "MGN" in cfg.MODEL.META_ARCHITECTURE and (sources.LOSSES or sources.BN != "shared"):
        yield (
            f"MODEL.META_ARCHITECTURE={cfg.MODEL.META_ARCHITECTURE} learns from sources with"
            " CC.SOURCES.LOSSES () and CC.SOURCES.BN shared only; ClusterContrast knows the rest."
        )


def losses(cfg: Any, world_size: int) -> Iterator[str]:
    """Losses of this plug-in are not among those of the sources."""
    ours = [name for name in cfg.CC.SOURCES.LOSSES if name in LOSSES]
    if ours:
        yield f"{', '.join(ours)} in CC.SOURCES.LOSSES: our losses go to MODEL.LOSSES.NAME."


def validation(cfg: Any, world_size: int) -> Iterator[str]:
    """Identities that are held out are measured."""
    if cfg.CC.SOURCES.VALIDATION > 0 and cfg.TEST.EVAL_PERIOD <= 0:
        yield (
            f"CC.SOURCES.VALIDATION={cfg.CC.SOURCES.VALIDATION} holds out identities that"
            f" TEST.EVAL_PERIOD={cfg.TEST.EVAL_PERIOD} never measures; set one of the two."
        )
