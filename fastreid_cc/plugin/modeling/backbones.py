"""Backbones that fastreid does not have, CLIP's tower and timm's networks; what never learns."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastreid.modeling.backbones import BACKBONE_REGISTRY, build
from torch import Tensor, nn

from ...errors import BadConfig, MissingWeights
from ...networks.clip_tower import ClipTower, load_clip
from ...networks.timm_network import TimmNetwork, load_timm
from ...registry import keyword_arguments
from ...requirements import require_extra
from ..checkpoint_files import load_file
from ..compat.patching import wrap
from ..weight_layouts import find_weights
from .fast_backbone import prepare_processor, speed_up

N = TypeVar("N", bound=nn.Module)
logger = logging.getLogger("fastreid.cc.modeling")


@BACKBONE_REGISTRY.register()
def build_clip_backbone(cfg: Any) -> ClipTower:
    """The tower of MODEL.BACKBONE.CLIP for INPUT.SIZE_TRAIN, with PRETRAIN_PATH's weights.

    Raises:
        BadConfig: if MODEL.BACKBONE.FEAT_DIM is not the size of its features, or the pooling
            changes them.
        MissingWeights: if there is no file, or it holds no such tower.
    """
    node = cfg.MODEL.BACKBONE
    tower = ClipTower(tuple(cfg.INPUT.SIZE_TRAIN), **_arguments(ClipTower, node.CLIP))
    _check_features(cfg, tower.feature_size, is_map=False)
    if node.PRETRAIN and not node.PRETRAIN_PATH:
        raise MissingWeights(
            "MODEL.BACKBONE.PRETRAIN_PATH='': CLIP's weights are not downloaded by themselves. Name"
            " a file with them (docs/networks.md says where they can be had), or set"
            " MODEL.BACKBONE.PRETRAIN False to start from random weights."
        )
    return _read(tower, node, load_clip)


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: Any) -> TimmNetwork:
    """The network of MODEL.BACKBONE.TIMM for INPUT.SIZE_TRAIN.

    Its weights are PRETRAIN_PATH's; without a path timm fetches its own.

    Raises:
        BadConfig: if timm has no such network, or MODEL.BACKBONE.FEAT_DIM is not the size of its
            features, or the pooling changes them.
        MissingWeights: if there is no file, it does not fit, or it cannot be fetched.
    """
    require_extra("timm")
    node = cfg.MODEL.BACKBONE
    network = TimmNetwork(
        tuple(cfg.INPUT.SIZE_TRAIN),
        (list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD)),
        node.PRETRAIN and not node.PRETRAIN_PATH,
        **_arguments(TimmNetwork, node.TIMM),
    )
    _check_features(cfg, network.feature_size, network.is_map)
    name = node.TIMM.NAME
    logger.info(f"timm's {name}: pixels are normalised as the {node.TIMM.PIXELS} says")
    if "_clip_" in name and name.endswith(".openai") and "quickgelu" not in name:
        logger.warning(
            f"MODEL.BACKBONE.TIMM.NAME={name} computes GELU where OpenAI's weights were trained"
            " with another activation: other features. Use the name with clip_quickgelu."
        )
    return _read(network, node, load_timm)


#: The file is read above, whatever wrapped it.
for _builder in (build_clip_backbone, build_timm_backbone):
    _builder.reads_own_weights = True


def _arguments(cls: type, node: Any) -> dict[str, Any]:
    return {name: node[name.upper()] for name in keyword_arguments(cls)}


def _check_features(cfg: Any, size: int, is_map: bool) -> None:
    node = cfg.MODEL.BACKBONE
    if size != node.FEAT_DIM:
        raise BadConfig(
            f"MODEL.BACKBONE.FEAT_DIM={node.FEAT_DIM} must be {size}, the features of"
            f" {node.NAME} as configured."
        )
    if not is_map and cfg.MODEL.HEADS.POOL_LAYER != "Identity":
        raise BadConfig(
            f"MODEL.HEADS.POOL_LAYER={cfg.MODEL.HEADS.POOL_LAYER} changes tokens, which are no map:"
            " GeM and the clipping poolings cut off what is negative. Set it to Identity."
        )


def _read(network: N, node: Any, load: Callable[[N, Mapping[str, Tensor]], str]) -> N:
    """Loads MODEL.BACKBONE.PRETRAIN_PATH, if a config asks for it."""
    if not (node.PRETRAIN and node.PRETRAIN_PATH):
        return network
    where = f"MODEL.BACKBONE.PRETRAIN_PATH={node.PRETRAIN_PATH!r}"
    try:
        logger.info(
            f"{where}: {load(network, find_weights(load_file(node.PRETRAIN_PATH)).weights)}"
        )
    except FileNotFoundError as error:
        raise MissingWeights(f"{where}: no such file.") from error
    except MissingWeights as error:
        raise MissingWeights(f"{where}: {error}") from error
    return network


def _build(stock: Any, cfg: Any) -> nn.Module:
    """Around `build_backbone`: what MODEL.BACKBONE.FROZEN names never learns; how it computes."""
    prepare_processor(cfg)
    backbone: nn.Module = stock(cfg)
    for pattern in cfg.MODEL.BACKBONE.FROZEN:
        found = [(k, p) for k, p in backbone.named_parameters() if re.match(pattern, k)]
        if not found:
            names = ", ".join(name for name, _ in backbone.named_children())
            raise BadConfig(
                f"MODEL.BACKBONE.FROZEN: no parameter of {cfg.MODEL.BACKBONE.NAME} begins with"
                f" {pattern!r}. It has {names}, ..."
            )
        for _, parameter in found:
            parameter.requires_grad_(False)
        logger.info(f"frozen for good: {len(found)} parameters that begin with {pattern!r}")
    speed_up(backbone, cfg)
    return backbone


wrap(build, "build_backbone", _build)
