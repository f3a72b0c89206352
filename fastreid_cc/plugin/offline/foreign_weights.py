"""Weights files of other projects, compared with a backbone before MODEL.BACKBONE.PRETRAIN_PATH."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fastreid.modeling.backbones import build_backbone
from torch import Tensor

from ...errors import MissingPackage, UnreadableFile, printable
from ..checkpoint_files import load_file
from ..compat.patching import with_values


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

    Raises:
        MissingPackage: for a .safetensors file without that package.
        UnreadableFile: if it is damaged, or holds anything else.
    """
    if path.suffix != ".safetensors":
        return load_file(str(path), argparse.Namespace)  # DINO and MAE keep their arguments so
    if importlib.util.find_spec("safetensors") is None:
        raise MissingPackage(
            f"{printable(path)} needs the package safetensors: pip install safetensors"
        )
    try:
        return importlib.import_module("safetensors.torch").load_file(str(path))
    except Exception as error:  # its own error class, and what a torn file raises
        reason = printable(error)[:200]
        raise UnreadableFile(f"{printable(path)} is damaged or no safetensors: {reason}") from error


def fit(weights: Mapping[str, Tensor], cfg: Any) -> Fit:
    """Compares weights with the backbone that a config names.

    Position embeddings of another number of patches count as fitting: fastreid's ViT resizes them.
    """
    own = build_backbone(with_values(cfg, "MODEL.BACKBONE.PRETRAIN", False)).state_dict()
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


def _is_resized(name: str, weight: Tensor, own: Tensor) -> bool:
    is_embedding = name == "pos_embed" and weight.ndim == own.ndim == 3
    return is_embedding and weight.shape[2] == own.shape[2]
