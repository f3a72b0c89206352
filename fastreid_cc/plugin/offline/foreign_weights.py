"""Weights files of other projects, compared with a backbone before MODEL.BACKBONE.PRETRAIN_PATH."""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fastreid.modeling import build_model
from fastreid.modeling.backbones import build_backbone
from torch import Tensor, nn

from ...errors import MissingWeights, UnreadableFile, printable
from ...networks.clip_tower import ClipTower, load_clip
from ...networks.timm_network import TimmNetwork, load_timm
from ...networks.weights import refuse_other_shapes
from ..checkpoint_files import load_file
from ..compat.patching import with_values
from ..weight_layouts import find_neck, find_weights

#: sha256 of OpenAI's published archives -> what they hold.
OPENAI = {
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "OpenAI's CLIP ViT-B/16",
}


class Fit(NamedTuple):
    """How weights and a backbone agree.

    Args:
        weights: those of the backbone's names and shapes.
        missing: names that the backbone has and the file has not.
        unexpected: names that the file has and the backbone has not.
        misshapen: name -> (shape in the file, shape in the backbone).
    """

    weights: dict[str, Tensor]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def read_file(path: Path) -> Any:
    """The content of a weights file: tensors and plain values only, no code in it is run.

    A TorchScript archive holds code; of those only the files of `OPENAI` are opened.

    Raises:
        MissingPackage: for a .safetensors file without that package.
        UnreadableFile: if it is damaged, or holds anything else.
    """
    if not _is_torchscript(path):
        return load_file(str(path), argparse.Namespace)  # DINO and MAE keep their arguments so
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest not in OPENAI:
        raise UnreadableFile(
            f"{printable(path)} is a TorchScript archive, which holds code. Of those only"
            f" {', '.join(OPENAI.values())} are opened, told by sha256; this is {digest}."
        )
    return torch.jit.load(str(path), map_location="cpu").state_dict()


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def fit(weights: Mapping[str, Tensor], cfg: Any) -> Fit:
    """Compares weights with the backbone that a config names.

    Position embeddings of another number of patches count as fitting: the backbones resize them.
    """
    backbone = build_backbone(with_values(cfg, "MODEL.BACKBONE.PRETRAIN", False))
    inside = backbone.model if isinstance(backbone, TimmNetwork) else backbone
    own = inside.state_dict()
    common = {name: weight for name, weight in weights.items() if name in own}
    other = {
        name: (tuple(weight.shape), tuple(own[name].shape))
        for name, weight in common.items()
        if weight.shape != own[name].shape and not _is_resized(name, weight, own[name])
    }
    return Fit(
        {name: weight for name, weight in common.items() if name not in other},
        tuple(n for n in own if n not in weights and not n.endswith("num_batches_tracked")),
        tuple(name for name in weights if name not in own),
        other,
    )


def whole_model(content: Any, cfg: Any) -> tuple[dict[str, Tensor], str]:
    """A config's network with backbone and neck of another project's whole model.

    Args:
        content: of a file, e.g. a checkpoint of PCL-CLIP.
        cfg: names the backbone and the head.
    Returns:
        its state dict, for MODEL.WEIGHTS; and a sentence on what was read.

    Raises:
        MissingWeights: if the file has no batch norm behind its backbone, the config's head has
            none, or something is missing or of another shape.
    """
    cpu = with_values(cfg, "MODEL.BACKBONE.PRETRAIN", False, "MODEL.DEVICE", "cpu")
    model, neck = build_model(cpu), find_neck(content)
    weights = find_weights(content).weights
    if isinstance(model.backbone, ClipTower):
        said = load_clip(model.backbone, weights)
    elif isinstance(model.backbone, TimmNetwork):
        said = load_timm(model.backbone, weights)
    else:
        own = model.backbone.state_dict()
        refuse_other_shapes(own, weights, cfg.MODEL.BACKBONE.NAME)
        model.backbone.load_state_dict({name: weights[name] for name in own})
        said = f"{len(own)} weights read"
    norms = [m for m in model.heads.bottleneck if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not neck or not norms:
        where = "the file" if not neck else "the config's head (MODEL.HEADS.WITH_BNNECK)"
        raise MissingWeights(f"{where} has no batch norm behind the backbone; leave --whole out.")
    kept = {k: v for k, v in norms[0].state_dict().items() if k not in neck}
    own_neck = {k: v for k, v in norms[0].state_dict().items() if k in neck}
    refuse_other_shapes(own_neck, neck, "the neck of MODEL.HEADS")
    norms[0].load_state_dict({**kept, **neck})
    return model.state_dict(), f"{said}; batch norm of {len(neck['weight'])} channels"


def _is_resized(name: str, weight: Tensor, own: Tensor) -> bool:
    is_embedding = name in ("pos_embed", "positional_embedding") and weight.ndim == own.ndim
    return is_embedding and weight.shape[-1] == own.shape[-1]
