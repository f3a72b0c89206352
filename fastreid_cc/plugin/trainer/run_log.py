"""What a label-free run says of itself: its set-up, each labelling, results outside the epochs."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
from fastreid.evaluation.testing import flatten_results_dict
from fastreid.utils import comm
from torch import Tensor

from ...config import source_names
from ...config.checks import starts_from_weights
from ...config.published_batches import (
    Setting,
    difference_from_published,
    images_per_statistic,
    is_published_method,
    method_of,
    setting_line,
)
from ...data.items import cameras_in_words
from ...labeling.pseudo_labeler import PseudoLabeler
from ...labeling.tracklets import Linker
from ...labels.diagnostics import stability, summarize, summary_line
from ...labels.helped import early_warning, start_warning
from ...labels.open_set import separate_open_set, wrong_answers
from ...memories.base import Memory
from ...structures import PseudoLabels
from ..loading.target_images import TargetImages
from ..seeding import sample_rows

logger = logging.getLogger("fastreid.cc.hooks")
WINDOW = 20  # values in the median that fastreid writes of a noisy scalar
TIMES = ("time", "data_time")


def log_setup(cfg: Any, images: TargetImages, stages: str) -> None:
    """Before the training: images, cameras, batch, batch norm; stages; a warning if unlike papers.

    Where sources share the target's batch norm, their images count in its statistics.
    """
    world, sources = comm.get_world_size(), cfg.CC.SOURCES
    in_step = cfg.SOLVER.IMS_PER_BATCH
    if images.sources is not None and sources.MODE == "joint" and sources.BN == "shared":
        in_step += sources.IMS_PER_BATCH * len(source_names(cfg))
    setting = Setting(
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.DATALOADER.NUM_INSTANCE,
        images_per_statistic(in_step // world, cfg.CC.SAMPLES_PER_BN),
    )
    logger.info(
        f"{len(images.paths):,} images, {cameras_in_words(images.cameras)};"
        f" {setting_line(setting, world)} (CC.SAMPLES_PER_BN={cfg.CC.SAMPLES_PER_BN})"
    )
    if stages:
        logger.info(stages)
    found = difference_from_published(method_of(cfg), setting)
    if found and is_published_method(cfg):
        logger.warning(found)


def log_results(trainer: Any, name: str, results: dict[str, Any]) -> None:
    """Scalars "start/mAP" and so on: of the weights the run starts from, or after sources."""
    if not comm.is_main_process():
        return
    flat = {k: v for k, v in flatten_results_dict(results).items() if not isinstance(v, str)}
    trainer.storage.put_scalars(
        **{f"{name}/{key}": float(value) for key, value in flat.items()}, smoothing_hint=False
    )


def log_labelling(
    trainer: Any,
    images: TargetImages,
    found: PseudoLabels,
    *,
    previous: PseudoLabels | None,
    extracted: float,
    total: float,
) -> None:
    """One line and the scalars "cc/..." of a labelling; warnings if it follows cameras or nothing.

    Args:
        trainer: its epoch, iteration and storage are used.
        images: cameras, and identities for the log where they are known.
        found: the labels, with the seconds of their steps.
        previous: the labels before; with them "cc/stability" says how alike the two are.
        extracted: seconds of the extraction.
        total: seconds of everything before the epoch's first step.
    """
    summary = summarize(found.labels, images.cameras, images.truth)
    if previous is not None:
        summary["stability"] = stability(previous.labels, found.labels)
    num_cameras = len(np.unique(images.cameras))
    several = num_cameras > 1  # with one, or unknown ones, "1.0 cameras" would read as a fault
    logger.info(summary_line(trainer.epoch, summary, found.eps, total, has_cameras=several))
    _warn_of_cameras(summary, num_cameras)
    if unfit := early_warning(trainer.epoch, summary):
        logger.warning(unfit)
    seconds = {"extract": extracted, **found.seconds}
    scalars = {f"cc/{key}": value for key, value in summary.items()}
    scalars |= {f"cc/seconds_{key}": value for key, value in seconds.items()}
    scalars |= {f"cc/{key}": float(value) for key, value in found.figures.items()}
    if found.eps is not None:
        scalars["cc/eps"] = float(found.eps)
    trainer.storage.iter = trainer.iter  # else the writer takes them for written already
    trainer.storage.put_scalars(**scalars, smoothing_hint=False)


def doubt_first_labels(trainer: Any, features: Tensor, labels: np.ndarray) -> None:
    """Warns of clusters that the weights given cannot tell apart: scalar "start/wrong_answers".

    Asked where training is not to harm (CC.KEEP_START), of CC.COMPARE_IMAGES images at most. Random
    weights are not asked: they may know nobody, and learn.

    Args:
        trainer: its config and storage are used.
        features: f32 [N, D], unit rows, that were clustered.
        labels: i64 [N], the first ones.
    """
    cfg = trainer.cfg
    if not (cfg.CC.KEEP_START and starts_from_weights(cfg)):
        return
    rows = sample_rows(len(labels), cfg.CC.COMPARE_IMAGES, cfg.CC.SEED)
    try:
        wrong = wrong_answers(separate_open_set(features[rows].cpu().numpy(), labels[rows]))
    except ValueError:  # fewer than two clusters; a collapse is said elsewhere
        return
    trainer.storage.put_scalar("start/wrong_answers", wrong, smoothing_hint=False)
    if told := start_warning(wrong):
        logger.warning(told)


def log_plain_labels(
    trainer: Any,
    images: TargetImages,
    labeler: PseudoLabeler,
    features: Tensor,
    previous: PseudoLabels | None,
    linker: Linker | None = None,
) -> None:
    """Scalars "cc/ari_plain", "cc/num_clusters_plain": labels of the features as they were.

    Beside the labelling of refined features, at the same weights. A copy of the labeler works, so
    the training goes on as without; nothing is done where no identity is known.
    """
    if images.truth is None:
        return
    links = copy.deepcopy(linker)(features) if linker else None
    found = copy.deepcopy(labeler)(features, images.cameras, links=links, previous=previous)
    summary = summarize(found.labels, images.cameras, images.truth)
    scalars: Any = {f"cc/{name}_plain": summary[name] for name in ("ari", "num_clusters")}
    trainer.storage.iter = trainer.iter  # else the writer takes them for written already
    trainer.storage.put_scalars(**scalars, smoothing_hint=False)


def _warn_of_cameras(summary: dict[str, float], num_cameras: int) -> None:
    if num_cameras > 1 and summary["num_clusters"] and summary["cameras_per_cluster"] < 1.2:
        logger.warning(
            f"clusters hold {summary['cameras_per_cluster']:.1f} of {num_cameras} cameras each:"
            " they may follow the camera, not the identity. Try CC.WARMUP.EPOCHS,"
            " CC.EXTRACT.BN camera, or CC.DISTANCE.NAME ca_jaccard."
        )


def warn_of_kept_rows(cfg: Any, memory: Memory) -> None:
    """A warning if all labellings but the first go without what the config asks of extraction."""
    if not (memory.persists and memory.needs_labels):
        return
    teacher = cfg.CC.TEACHER
    asked = {
        f"CC.EXTRACT.BN={cfg.CC.EXTRACT.BN}": cfg.CC.EXTRACT.BN != "running",
        "CC.EXTRACT.FLIP=True": cfg.CC.EXTRACT.FLIP,
        "CC.TEACHER.USE_FOR_LABELS=True": teacher.ENABLED and teacher.USE_FOR_LABELS,
    }
    unused = [key for key, is_asked in asked.items() if is_asked]
    if unused:
        name = cfg.CC.MEMORY.NAME
        logger.warning(
            f"CC.MEMORY.NAME={name} keeps its rows, and all labellings but the first cluster these"
            f" as training left them; the first only sees {' and '.join(unused)}."
            f" CC.MEMORY.{name.upper()}.REINIT True extracts features for every labelling."
        )


def recent_scalars(storage: Any) -> dict[str, list[tuple[float, int]]]:
    """The last values of the losses, which the medians in metrics.json are made of.

    Args:
        storage: fastreid's EventStorage.
    Returns:
        name -> the last 20 pairs (value, iteration), for all noisy scalars but times.
    """
    noisy = [name for name, hint in storage.smoothing_hints().items() if hint and name not in TIMES]
    return {
        name: [(float(v), int(i)) for v, i in storage.history(name).values()[-WINDOW:]]
        for name in noisy
    }


def put_back(storage: Any, recent: dict[str, list[tuple[float, int]]]) -> None:
    """Gives a resumed run the values of `recent_scalars`: its curves go on without a step."""
    now = storage.iter
    for name, pairs in recent.items():
        for value, iteration in pairs:
            storage.iter = iteration
            storage.put_scalar(name, value)
    storage.iter = now


def forget_losses(storage: Any) -> None:
    """Where a stage begins: no loss of the last one is shown any more, or averaged with the new.

    fastreid prints, and writes, the last value of every scalar there ever was.
    """
    for name in [name for name in storage.histories() if "loss" in name]:
        for kept in (storage.histories(), storage.latest(), storage.smoothing_hints()):
            kept.pop(name, None)
