"""The labelled sources of a run: their images, and one mean feature per identity."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fastreid.data import build as data_build
from fastreid.data.datasets import DATASET_REGISTRY
from torch import Tensor, nn

from ...config import source_folders, source_names
from ...data.folder import FolderItems
from ...data.items import Item, is_unknown
from ...data.sources import SourceImages, hold_out, number_sources
from ...errors import BadConfig
from ...memories.updates import group_means
from .extract import Images, extract_features

Listed = list[tuple[str, Sequence[Item]]]
BEST_SOURCE = "best_source/model_best.pth"
logger = logging.getLogger("fastreid.cc.sources")


def collect_sources(cfg: Any, target: Images) -> SourceImages | None:
    """The images of CC.SOURCES.NAMES and FOLDERS; None where no source is named.

    Args:
        target: the target's images.
    Raises:
        ValueError: see `number_listed` and `FolderItems`.
    """
    listed: Listed = [
        (name, DATASET_REGISTRY.get(name)(root=data_build._root).train)
        for name in cfg.CC.SOURCES.NAMES
    ]
    listed += list_folders(cfg)
    if not listed:
        return None
    found = number_listed(cfg, listed, target.paths, 1 + int(target.cameras.max(initial=-1)))
    if found.held_out is not None:
        logger.info(f"held out of them to choose {BEST_SOURCE}: {found.held_out.summary()}")
    logger.info(f"labelled sources: {found.summary()}")
    for name, items in listed:
        unknown = sum(is_unknown(item[1]) for item in items)
        if unknown:
            logger.warning(f"{name}: {unknown} of {len(items)} images have no identity: left out")
    return found


def list_folders(cfg: Any, *, read_images: bool = True) -> Listed:
    """(name, training items) of each folder of CC.SOURCES.FOLDERS.

    The same identity in two folders is two individuals. Raises and cost: see `FolderItems`.
    """
    listed: Listed = []
    for name, options in source_folders(cfg).items():
        if options.root and not options.identity:
            raise BadConfig(
                f"{options.key_of('identity')} is empty: a source needs labels. Say where the paths"
                " hold them: folder:0 (a sub-folder for each individual) or a regex with one group."
            )
        root = os.path.abspath(data_build._root)
        items = FolderItems(options, root, read_images=read_images).train
        named = [(p, w if is_unknown(w) else f"folder/{name}/{w}", c) for p, w, c in items]
        listed.append((name, named))
    return listed


def number_listed(
    cfg: Any, listed: Listed, target_paths: Sequence[str], first_camera: int
) -> SourceImages:
    """Numbers sources, without the identities that are held out of them.

    Args:
        listed: (name, items) of sources of the config.
        target_paths: images of the target.
        first_camera: number of the first source camera.
    Raises:
        ValueError: see `number_sources` and `hold_out`; or a source with fewer identities than fill
            its part of a step.
    """
    training, validation, share = list(listed), [], cfg.CC.SOURCES.VALIDATION
    if share:
        domains = {name: domain for domain, name in enumerate(source_names(cfg), 1)}
        for at, (name, items) in enumerate(listed):
            kept, held_out = hold_out(name, items, share, (cfg.CC.SEED, domains[name]))
            training[at] = (name, kept)
            validation.append((name, held_out))
    found = number_sources(training, first_camera=first_camera, target_paths=target_paths)
    if share:
        held = number_sources(validation, first_camera=0, target_paths=target_paths)
        found = replace(found, held_out=held)
    for domain, name in enumerate(found.names, 1):
        _check_filled(cfg, name, found.classes[found.domains == domain])
    return found


def _check_filled(cfg: Any, name: str, classes: np.ndarray) -> None:
    """Refuses a source whose identities cannot fill its images of one step."""
    batch, instances = cfg.CC.SOURCES.IMS_PER_BATCH, cfg.CC.SOURCES.NUM_INSTANCE
    _, sizes = np.unique(classes, return_counts=True)
    is_uniform = cfg.CC.SOURCES.SAMPLER == "uniform"
    places = len(classes) if is_uniform else int(np.where(sizes > 1, instances, 1).sum())
    if places < batch:
        raise BadConfig(
            f"{name}: {len(sizes)} identities fill {places} of the {batch} places of a step"
            f" (CC.SOURCES.IMS_PER_BATCH={batch}, CC.SOURCES.NUM_INSTANCE={instances}). Lower"
            " IMS_PER_BATCH."
        )


def source_centroids(cfg: Any, model: nn.Module, sources: SourceImages) -> Tensor:
    """Mean of the unit features of each identity, f32 [S, D], on the CPU.

    Each source passes its own batch norm, where it has one. Cost: one extraction of all sources.
    """
    features = extract_features(cfg, model, sources, sources.domains).cpu()
    return group_means(features, torch.from_numpy(sources.classes), sources.num_classes)
