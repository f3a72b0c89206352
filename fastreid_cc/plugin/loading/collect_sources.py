"""The labelled sources of a run: their images, and one mean feature per identity."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fastreid.data import build as data_build
from fastreid.data.datasets import DATASET_REGISTRY
from torch import Tensor, nn

from ...data.sources import SourceImages, hold_out, number_sources
from ...errors import BadConfig
from ...memories.updates import group_means
from .extract import Images, extract_features

BEST_SOURCE = "best_source/model_best.pth"
logger = logging.getLogger("fastreid.cc.sources")


def collect_sources(cfg: Any, target: Images) -> SourceImages | None:
    """The images of CC.SOURCES.NAMES; None where no source is named.

    Args:
        target: the target's images.
    Raises:
        ValueError: see `number_sources`; or a source with fewer identities than fill its part of a
            step.
    """
    if not cfg.CC.SOURCES.NAMES:
        return None
    listed, validation, share = [], [], cfg.CC.SOURCES.VALIDATION
    for domain, name in enumerate(cfg.CC.SOURCES.NAMES, 1):
        items = DATASET_REGISTRY.get(name)(root=data_build._root).train
        if share:
            items, held_out = hold_out(name, items, share, (cfg.CC.SEED, domain))
            validation.append((name, held_out))
        listed.append((name, items))
    found = number_sources(
        listed,
        first_camera=1 + int(target.cameras.max(initial=-1)),
        target_paths=target.paths,
    )
    if share:
        held = number_sources(validation, first_camera=0, target_paths=target.paths)
        found = replace(found, held_out=held)
        logger.info(f"held out of them to choose {BEST_SOURCE}: {held.summary()}")
    for domain, name in enumerate(found.names, 1):
        _check_filled(cfg, name, found.classes[found.domains == domain])
    logger.info(f"labelled sources: {found.summary()}")
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
