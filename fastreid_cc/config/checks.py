"""What can be wrong with a config: values out of their limits, keys that do not fit.

Reads no image and builds no network, so it runs before anything slow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..data.cut_out import CutOut
from ..data.generated_views import ViewFolder
from ..data.triplet_mining import TripletMining
from ..errors import BadConfig
from ..limits import fault
from ..registry import CLUSTERERS, DISTANCES, LOSSES, MEMORIES, NEIGHBORS, REFINERS, argument_faults
from .keys import all_keys, arguments, build_part, walk
from .link_checks import links
from .loss_checks import LOSS_CHECKS, Check
from .loss_stages import loss_stages, mining
from .picture_checks import pictures, views
from .signatures import STOCK_LOSSES
from .source_checks import source_faults
from .source_folders import source_names

MOST_FAULTS = 5  # told at once


def faults(cfg: Any, *, world_size: int = 1) -> list[str]:
    """Everything that is wrong with a config, each with its key; empty when sound.

    With true labels, without CC.ENABLED, only what works there is looked at.
    """
    checks = CHECKS if cfg.CC.ENABLED else LABELLED_CHECKS
    return [message for check in checks for message in check(cfg, world_size)]


def validate(cfg: Any, *, world_size: int = 1) -> None:
    """Raises one BadConfig that lists the faults of a config, five of them at most."""
    found = faults(cfg, world_size=world_size)
    if len(found) == 1:
        raise BadConfig(found[0])
    if found:
        shown = found if len(found) <= MOST_FAULTS else found[: MOST_FAULTS - 1]
        lines = [f"{len(found)} faults in the config:"]
        lines += [f"  {i}. {' '.join(fault.split())}" for i, fault in enumerate(shown, 1)]
        lines += [f"  and {len(found) - len(shown)} more"] * (len(shown) < len(found))
        raise BadConfig("\n".join(lines))


def values(cfg: Any, world_size: int, below: tuple[str, ...] = ("",)) -> Iterator[str]:
    """Values out of their limits; NaN and infinity, with which comparisons pass unnoticed."""
    keys = all_keys()
    for key, value in walk(cfg):
        if not key.startswith(below):
            continue
        limits = keys[key].limits if key in keys else None
        if isinstance(limits, (str, tuple)):
            entries = value if isinstance(value, (tuple, list)) else (value,)
            yield from filter(None, (fault(key, entry, limits) for entry in entries))
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{key}={value} must be a finite number."


def batch(cfg: Any, world_size: int) -> Iterator[str]:
    """A batch holds whole clusters, equally many in each process."""
    images, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    if instances < 1 or images < 1 or images % (instances * world_size):
        yield (
            f"SOLVER.IMS_PER_BATCH={images} must be a multiple of DATALOADER.NUM_INSTANCE="
            f"{instances} x {world_size} process(es)."
        )
    elif images // instances < 2:
        yield (
            f"SOLVER.IMS_PER_BATCH={images} / DATALOADER.NUM_INSTANCE={instances} leaves one"
            " cluster per batch; at least 2 are needed."
        )
    views = cfg.CC.WARMUP.VIEWS
    if cfg.CC.WARMUP.EPOCHS > 0 and views > 0 and images % (views * world_size):
        yield (
            f"SOLVER.IMS_PER_BATCH={images} must be a multiple of CC.WARMUP.VIEWS={views}"
            f" x {world_size} process(es)."
        )


def schedule(cfg: Any, world_size: int) -> Iterator[str]:
    """Stages fit into the training."""
    epochs, most, iters = cfg.CC.WARMUP.EPOCHS, cfg.SOLVER.MAX_EPOCH, cfg.CC.ITERS_PER_EPOCH
    if epochs > most:
        yield f"CC.WARMUP.EPOCHS={epochs} must not exceed SOLVER.MAX_EPOCH={most}."
    if 0 < iters and cfg.SOLVER.WARMUP_ITERS >= most * iters:
        yield (
            f"SOLVER.WARMUP_ITERS={cfg.SOLVER.WARMUP_ITERS} must be shorter than the training,"
            f" SOLVER.MAX_EPOCH={most} x CC.ITERS_PER_EPOCH={iters} iterations."
        )


def starts_from_weights(cfg: Any) -> bool:
    """Whether the network starts from anything but random weights."""
    return bool(cfg.MODEL.BACKBONE.PRETRAIN or cfg.MODEL.WEIGHTS)


def data(cfg: Any, world_size: int) -> Iterator[str]:
    """There is a data set, and no number of its identities."""
    if not cfg.DATASETS.NAMES:
        yield "DATASETS.NAMES is empty; name the data set to learn from."
    if cfg.MODEL.HEADS.NUM_CLASSES != 0 and not source_names(cfg):
        yield (
            f"MODEL.HEADS.NUM_CLASSES={cfg.MODEL.HEADS.NUM_CLASSES}: without labels the number of"
            " classes is unknown; leave it 0."
        )
    kind = cfg.CC.TRAIN_BN
    if kind != "batch" and (source_names(cfg) or cfg.CC.SAMPLES_PER_BN):
        yield (
            f"CC.TRAIN_BN={kind} says alone what batch norm does: leave CC.SOURCES empty and set"
            " CC.SAMPLES_PER_BN 0, or set CC.TRAIN_BN batch."
        )
    if kind == "frozen" and not starts_from_weights(cfg):
        yield (
            "CC.TRAIN_BN=frozen keeps the statistics of the starting weights, and random weights"
            " have none: set MODEL.WEIGHTS or MODEL.BACKBONE.PRETRAIN, or CC.TRAIN_BN batch."
        )
    if cfg.CC.TRAIN_BN == "camera" and "MGN" in cfg.MODEL.META_ARCHITECTURE:
        yield f"MODEL.META_ARCHITECTURE={cfg.MODEL.META_ARCHITECTURE} has no CC.TRAIN_BN camera."
    if cfg.CC.KEEP_START and not cfg.CC.COMPARE_IMAGES:
        yield "CC.KEEP_START judges by a comparison with the start: set CC.COMPARE_IMAGES above 1."


def parts(cfg: Any, world_size: int) -> Iterator[str]:
    """The parts in use exist, are installed and take their arguments together."""
    cc = cfg.CC
    chosen = [(NEIGHBORS, cc.NEIGHBORS.NAME), (CLUSTERERS, cc.CLUSTER.NAME)]
    chosen += [(MEMORIES, cc.MEMORY.NAME), *((REFINERS, name) for name in cc.REFINE.NAMES)]
    if cc.CLUSTER.NAME in CLUSTERERS and CLUSTERERS.get(cc.CLUSTER.NAME).consumes == "distances":
        chosen.append((DISTANCES, cc.DISTANCE.NAME))
    warm_up = cc.WARMUP.LOSSES if cc.WARMUP.EPOCHS > 0 else ()
    names = dict.fromkeys((*cfg.MODEL.LOSSES.NAME, *warm_up))
    chosen += [(LOSSES, name) for name in names if name not in STOCK_LOSSES]
    for registry, name in chosen:
        try:
            cls = registry.get(name)
            if not argument_faults(cls, arguments(cfg, cls)):  # else `values` has told them
                build_part(cfg, registry, name)
        except (KeyError, ValueError, ImportError) as error:
            yield str(error.args[0]) if error.args else str(error)
        except (RuntimeError, MemoryError, OverflowError) as error:  # too large to be built
            yield f"{registry.node(name)} cannot be built: {str(error)[:200]}"


def labelled_values(cfg: Any, world_size: int) -> Iterator[str]:
    """`values`, of keys that work with true labels and that no part checks."""
    yield from values(
        cfg, world_size, tuple(f"{p.key}." for p in (TripletMining, CutOut, ViewFolder))
    )


CHECKS: tuple[Check, ...]
CHECKS = (values, batch, schedule, data, parts, *LOSS_CHECKS, source_faults)
CHECKS += (loss_stages, mining, pictures, views, links)
LABELLED_CHECKS: tuple[Check, ...] = (labelled_values, loss_stages, mining, pictures, views)
