"""CLIP's image tower as a backbone of fastreid, and parameters that never learn."""

from __future__ import annotations

import logging
import re
from typing import Any

from fastreid.modeling.backbones import BACKBONE_REGISTRY, build
from torch import nn

from ...errors import BadConfig, MissingWeights
from ...networks.clip_tower import ClipTower, load_clip
from ...registry import keyword_arguments
from ..checkpoint_files import load_file
from ..compat.patching import wrap

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
    arguments = {name: node.CLIP[name.upper()] for name in keyword_arguments(ClipTower)}
    tower = ClipTower(tuple(cfg.INPUT.SIZE_TRAIN), **arguments)
    if node.FEAT_DIM != tower.feature_size:
        raise BadConfig(
            f"MODEL.BACKBONE.FEAT_DIM={node.FEAT_DIM} must be {tower.feature_size} for"
            f" MODEL.BACKBONE.CLIP.TOKENS={tower.tokens}."
        )
    if cfg.MODEL.HEADS.POOL_LAYER != "Identity":
        raise BadConfig(
            f"MODEL.HEADS.POOL_LAYER={cfg.MODEL.HEADS.POOL_LAYER} changes tokens, which are no map:"
            " GeM and the clipping poolings cut off what is negative. Set it to Identity."
        )
    if node.PRETRAIN:
        _read(tower, node.PRETRAIN_PATH)
    return tower


#: The file is read above, whatever wrapped it.
build_clip_backbone.reads_own_weights = True


def _read(tower: ClipTower, path: str) -> None:
    where = f"MODEL.BACKBONE.PRETRAIN_PATH={path!r}"
    if not path:
        raise MissingWeights(
            f"{where}: CLIP's weights are not downloaded by themselves. Name a file with them"
            " (docs/clip.md says where they can be had), or set MODEL.BACKBONE.PRETRAIN False to"
            " start from random weights."
        )
    try:
        content = load_file(path)
        while isinstance(content, dict) and not any(hasattr(v, "shape") for v in content.values()):
            content = next((v for v in content.values() if isinstance(v, dict)), None)
        if not isinstance(content, dict):
            raise MissingWeights("It holds no state dict.")
        tensors = {name: weight for name, weight in content.items() if hasattr(weight, "shape")}
        logger.info(f"{where}: {load_clip(tower, tensors)}")
    except FileNotFoundError as error:
        raise MissingWeights(f"{where}: no such file.") from error
    except MissingWeights as error:
        raise MissingWeights(f"{where}: {error}") from error


def _build(stock: Any, cfg: Any) -> nn.Module:
    """Around `build_backbone`: what MODEL.BACKBONE.FROZEN names never learns."""
    backbone = stock(cfg)
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
    return backbone


wrap(build, "build_backbone", _build)
