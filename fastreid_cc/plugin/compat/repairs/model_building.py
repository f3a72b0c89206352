"""Building models: RegNet and EfficientNet, Flatten."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import torch
from fastreid.modeling.backbones.regnet import config, effnet, regnet
from fastreid.modeling.heads.embedding_head import EmbeddingHead

from fastreid_cc.errors import BadConfig

from ..patching import around, assign


def build_regnets_from_anywhere() -> None:
    """Builds RegNet and EfficientNet in any folder, and each from the defaults.

    Breaks: the paths of their YAML files are relative to the root of the repository
    (FileNotFoundError elsewhere); both read them into one shared config, which keeps what an
    earlier model set, so RegNetX built after RegNetY gets SE blocks. All versions. Does: paths fall
    back to the installed package; each model starts from the defaults. Test: test_compat_model.py.
    May go: when fastreid does both.
    """
    assign(regnet, "regnet_cfg", _PackagedConfig())
    assign(effnet, "effnet_cfg", _PackagedConfig())


class _PackagedConfig:
    """A yacs config that forgets earlier files and finds those of the package."""

    def __init__(self) -> None:
        self._defaults = runpy.run_path(config.__file__)["cfg"]  # the shared one may be changed
        self._now = self._defaults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now, name)

    def merge_from_file(self, name: str) -> None:
        """Starts from the defaults; `name` may be relative to the folder that holds fastreid."""
        packaged = Path(config.__file__).resolve().parents[4] / name
        self._now = self._defaults.clone()
        self._now.merge_from_file(name if Path(name).exists() else str(packaged))


@around(EmbeddingHead, "forward")
def explain_flatten(stock: Any, head: Any, features: torch.Tensor, targets: Any = None) -> Any:
    """Names the keys where MODEL.HEADS.POOL_LAYER=Flatten does not fit the head.

    Breaks: the head's size is FEAT_DIM, but Flatten gives channels x height x width: an obscure
    shape error. All versions. Does: an error that names both keys and the number. Test:
    test_compat_model.py. May go: never.
    """
    try:
        return stock(head, features, targets)
    except RuntimeError as error:
        if type(head.pool_layer).__name__ != "Flatten":
            raise
        raise BadConfig(
            "MODEL.HEADS.POOL_LAYER='Flatten' turns the backbone's output into "
            f"{features[0].numel()} numbers per image: set MODEL.BACKBONE.FEAT_DIM="
            f"{features[0].numel()}, or choose a pooling layer, e.g. 'GlobalAvgPool'."
        ) from error
