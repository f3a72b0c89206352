"""An epoch's batches: clusters or views of the target, and identities of every source beside them.

Rows of the data set are the target's images, then those of the sources. A batch is ordered by
domain, [target | source 1 | source 2 | ...]; with several processes each gets its share of every
part, in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fastreid.utils import comm

from ...data.samplers import ClusterSampler, ViewSampler, augmentation_slots, extra_batches
from ...data.sources import SourceImages, join_batches
from ..seeding import seed_words
from ..trainer.stages import Stage
from .dataset import ContrastDataset, build_loader
from .target_images import TargetImages


def epoch_loader(
    cfg: Any, images: TargetImages, targets: np.ndarray, transform: Any, epoch: int, stage: Stage
) -> Any:
    """The loader of an epoch.

    Args:
        targets: i64 [N], row of the label space of the target's images, -1 = not trained on.
        transform: of the training images.
        stage: see `stages.Stages`.
    """
    joint = cfg.CC.SOURCES.MODE == "joint"
    sources = images.sources if stage == "source" or joint else None
    parts = []
    if stage != "source":
        parts += _target_batches(cfg, images, targets, epoch, stage)
    if sources is not None:
        parts += _source_batches(cfg, images, sources, epoch)
    views = cfg.CC.WARMUP.VIEWS if stage == "warm-up" else 0
    dataset = _dataset(cfg, images, sources, targets, transform, epoch, views)
    where = augmentation_slots(
        [len(part[0]) for part in parts], len(parts[0]), comm.get_rank(), comm.get_world_size()
    )
    return build_loader(dataset, join_batches(parts), cfg.DATALOADER.NUM_WORKERS, where)


def _dataset(
    cfg: Any,
    images: TargetImages,
    sources: SourceImages | None,
    targets: np.ndarray,
    transform: Any,
    epoch: int,
    views: int,
) -> ContrastDataset:
    paths, cameras, domains = images.paths, images.cameras, None
    first_source = len(paths)
    if sources is not None:
        paths, cameras = [*paths, *sources.paths], np.concatenate([cameras, sources.cameras])
        domains = np.concatenate([np.zeros(first_source, np.int64), sources.domains])
        targets = np.concatenate([targets, sources.classes])
    return ContrastDataset(
        paths,
        cameras,
        targets,
        transform,
        (cfg.CC.SEED, epoch),
        domains=domains,
        first_source=first_source,
        style=images.style,
        two_views=cfg.CC.TEACHER.ENABLED and cfg.CC.TEACHER.OWN_VIEW,
        views=views,
    )


def _target_batches(
    cfg: Any, images: TargetImages, targets: np.ndarray, epoch: int, stage: Stage
) -> list[list[np.ndarray]]:
    """One part, of views, in the warm-up; else P x K, and outliers if they are asked for."""
    shared = _shared(cfg, images)
    if stage == "warm-up":
        views = ViewSampler(
            len(targets), views=cfg.CC.WARMUP.VIEWS, batch_size=cfg.SOLVER.IMS_PER_BATCH, **shared
        )
        return [views.local_batches(epoch)]
    cameras = images.cameras if _is_camera_aware(cfg, images.cameras) else None
    tracks = images.tracks if cfg.CC.SAMPLER.TRACKLET_AWARE else None
    outliers = np.flatnonzero(targets < 0)
    num_outliers = cfg.CC.SAMPLER.OUTLIERS_PER_BATCH if len(outliers) else 0
    batches = ClusterSampler(
        targets,
        cameras,
        num_instances=cfg.DATALOADER.NUM_INSTANCE,
        batch_size=_batch_size(cfg, targets, num_outliers),
        tracklets=None if tracks is None else tracks.as_classes(),
        **shared,
    ).local_batches(epoch)
    if not num_outliers:
        return [batches]
    return [
        batches,
        extra_batches(
            outliers,
            per_batch=num_outliers,
            num_batches=len(batches),
            entropy=(cfg.CC.SEED, epoch),
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
        ),
    ]


def _source_batches(
    cfg: Any, images: TargetImages, sources: SourceImages, epoch: int
) -> list[list[np.ndarray]]:
    """Batches of each source, P identities x K images or single ones; other draws for each."""
    found = []
    for domain in range(1, sources.num_domains):
        own = sources.domains == domain
        classes, cameras = sources.classes[own], sources.cameras[own]
        if cfg.CC.SOURCES.SAMPLER == "uniform":
            classes = np.arange(len(classes))  # to the sampler each image is a class of its own
        shared = _shared(cfg, images)
        sampler = ClusterSampler(
            classes,
            cameras if _is_camera_aware(cfg, cameras) else None,
            num_instances=cfg.CC.SOURCES.NUM_INSTANCE,
            batch_size=cfg.CC.SOURCES.IMS_PER_BATCH,
            **{**shared, "seed": seed_words(shared["seed"], domain)[0]},
        )
        first = len(images.paths) + int(own.argmax())
        found.append([batch + first for batch in sampler.local_batches(epoch)])
    return found


def _shared(cfg: Any, images: TargetImages) -> dict[str, Any]:
    return {
        "num_batches": len(images.dataset) // cfg.SOLVER.IMS_PER_BATCH,
        "seed": cfg.CC.SEED,
        "rank": comm.get_rank(),
        "world_size": comm.get_world_size(),
    }


def _is_camera_aware(cfg: Any, cameras: np.ndarray) -> bool:
    choice = cfg.CC.SAMPLER.CAMERA_AWARE
    return choice == "on" or (choice == "auto" and len(np.unique(cameras)) > 1)


def _batch_size(cfg: Any, targets: np.ndarray, num_outliers: int) -> int:
    """IMS_PER_BATCH without outliers, or what clusters fill in whole groups of K per process."""
    wanted = cfg.SOLVER.IMS_PER_BATCH - num_outliers
    instances = cfg.DATALOADER.NUM_INSTANCE
    sizes = np.bincount(targets[targets >= 0])
    sizes = sizes[sizes > 0]
    filled = int(np.where(sizes > 1, instances, 1).sum())
    group = instances * comm.get_world_size()
    return min(wanted, max(filled // group, 1) * group)
