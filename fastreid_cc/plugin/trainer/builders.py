"""Builds what the label-free hook works with: labeller, memories, transform, seeds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.data import build as data_build
from fastreid.data.transforms import build_transforms

from ...config import build_part, from_config
from ...data.augment import ColorRobust
from ...errors import printable
from ...labeling.answers import names_below, read_answers
from ...labeling.collapse import CollapsePolicy
from ...labeling.feature_refinement import NeighborMean
from ...labeling.pseudo_labeler import PseudoLabeler
from ...labeling.tracklets import Linker, LinkOptions
from ...memories.base import Memory
from ...memories.pair import PairMemory
from ...registry import (
    CLUSTERERS,
    DISTANCES,
    MEMORIES,
    NEIGHBORS,
    REFINERS,
    keyword_arguments,
)
from ...structures import FeatureRefiner
from ..loading.target_images import ImageList, TargetImages
from ..modeling.registered_losses import WithLosses

logger = logging.getLogger("fastreid.cc.hooks")


def build_labeler(cfg: Any) -> PseudoLabeler:
    """The labeller of CC.NEIGHBORS, DISTANCE, CLUSTER, REFINE and COLLAPSE."""
    clusterer = build_part(cfg, CLUSTERERS, cfg.CC.CLUSTER.NAME)
    uses_distances = clusterer.consumes == "distances"
    return PseudoLabeler(
        neighbors=build_part(cfg, NEIGHBORS, cfg.CC.NEIGHBORS.NAME),
        distance=build_part(cfg, DISTANCES, cfg.CC.DISTANCE.NAME) if uses_distances else None,
        clusterer=clusterer,
        refiners=[build_part(cfg, REFINERS, name) for name in cfg.CC.REFINE.NAMES],
        collapse=build_collapse_policy(cfg),
        distributed=True,
    )


def build_linker(cfg: Any, images: TargetImages | ImageList) -> Linker | None:
    """What makes the links of CC.LINKS; None where there are none.

    Raises:
        BadConfig: see `read_answers`.
    """
    options, tracks = from_config(cfg, LinkOptions), images.tracks
    by_time = options.overlap and tracks is not None and not np.isnan(tracks.times).all()
    if not (options.tracklets or by_time):
        tracks = None
    if tracks is None and not options.file:
        return None
    answers = None
    if options.file:
        root = Path(data_build._root, Path(cfg.CC.FOLDER.ROOT).expanduser()).absolute()
        answers = read_answers(options.file, names_below(root, images.paths))
        if answers.unknown:
            logger.warning(
                f"CC.LINKS.FILE={options.file!r}: {len(answers.unknown)} images of its pairs are no"
                f" training images, e.g. {printable(answers.unknown[0])!r}; their pairs are left"
                " out"
            )
    if tracks is not None and options.tracklets and options.pool > 0:
        k1 = cfg.CC.DISTANCE.get(cfg.CC.DISTANCE.NAME.upper(), {}).get("K1", 0)
        length = int(np.median(np.bincount(tracks.tracklets[tracks.tracklets >= 0])))
        if 0 < k1 < 2 * length:
            logger.warning(
                f"the {k1} nearest images (CC.DISTANCE.{cfg.CC.DISTANCE.NAME.upper()}.K1) hold"
                f" little beside an image's own tracklet of {length}: tracklets may not find each"
                f" other. Raise K1 to {2 * length}, or take fewer images of a tracklet."
            )
    return Linker(options, images.cameras, tracks, answers)


def build_refiners(cfg: Any, network: WithLosses) -> list[FeatureRefiner]:
    """What refines the features before they are clustered: CC.LABELS.SMOOTH_NEIGHBORS, losses."""
    smooth = cfg.CC.LABELS.SMOOTH_NEIGHBORS
    means: list[FeatureRefiner] = [NeighborMean(smooth)] if smooth else []
    losses: Any = network.registered_losses.values()
    return means + [loss for loss in losses if loss.neighbors_to_refine]


def build_warmup_transform(cfg: Any) -> Any:
    """Training transform of the warm-up: colours must not tell images apart there.

    With CC.WARMUP.COLOR_ROBUST the colour-robust augmentation works at its default strengths,
    whatever INPUT.COLOR_ROBUST says of the epochs that follow, where clusters hold several cameras
    and strong changes only slow learning.
    """
    if not cfg.CC.WARMUP.COLOR_ROBUST:
        return build_transforms(cfg, is_train=True)
    cfg = cfg.clone()
    cfg.defrost()
    for name, default in keyword_arguments(ColorRobust).items():
        cfg.INPUT.COLOR_ROBUST[name.upper()] = default
    cfg.INPUT.COLOR_ROBUST.ENABLED = True
    return build_transforms(cfg, is_train=True)


def build_collapse_policy(cfg: Any) -> CollapsePolicy:
    """What CC.COLLAPSE allows when a labelling finds fewer clusters than a batch needs."""
    cc = cfg.CC
    return CollapsePolicy(
        num_wanted=(cfg.SOLVER.IMS_PER_BATCH - cc.SAMPLER.OUTLIERS_PER_BATCH)
        // cfg.DATALOADER.NUM_INSTANCE,
        eps_bound=cc.COLLAPSE.EPS_BOUND,
        shrink=cc.COLLAPSE.SHRINK_P,
        keep_previous=cc.COLLAPSE.KEEP_PREVIOUS,
    )


def build_memory(cfg: Any, network: WithLosses) -> Memory:
    """The memory of CC.MEMORY, or a pair of them for two networks."""
    return _for_all(network, lambda: build_part(cfg, MEMORIES, cfg.CC.MEMORY.NAME))


def build_source_memory(cfg: Any, network: WithLosses, classes: np.ndarray) -> Memory:
    """The memory of CC.MEMORY before there are rows of the target: with the sources' rows alone."""
    memory = build_memory(cfg, network)
    memory.set_source_images(torch.from_numpy(classes))
    size = cfg.MODEL.HEADS.EMBEDDING_DIM or cfg.MODEL.BACKBONE.FEAT_DIM
    nothing = torch.empty(0, size * network.num_networks)
    memory.reset(nothing, torch.empty(0, dtype=torch.int64))
    memory.to(next(network.parameters()).device)  # MODEL.DEVICE may be a cuda that is not there
    return memory


def build_warmup_memory(cfg: Any, network: WithLosses) -> Memory:
    """The instance memory of the warm-up, or a pair of them for two networks."""
    node = cfg.CC.WARMUP
    return _for_all(
        network,
        lambda: MEMORIES.get("instance")(
            temperature=node.TEMPERATURE,
            momentum=node.MOMENTUM,
            momentum_growth=0.0,
            init="features",
            update="mean",
            negatives=node.NEGATIVES,
        ),
    )


def _for_all(network: WithLosses, build: Callable[[], Memory]) -> Memory:
    return build() if network.num_networks == 1 else PairMemory(build(), build())
