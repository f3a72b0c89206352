"""Pretrained weights that fastreid can name: which are on this machine, where they belong."""

from __future__ import annotations

import importlib
import os
from typing import NamedTuple

from ..compat.repairs.pretrained_weights import FAMILIES, hub_path, weights_path

HUB_FAMILIES = ("resnest", "mobilenetv3")  # these ask torch.hub, which has a folder of its own


class Weights(NamedTuple):
    """Weights of one backbone: `path` is where fastreid looks, `url` where they are published."""

    family: str
    key: str
    path: str
    url: str

    @property
    def is_here(self) -> bool:
        """Whether the file exists and is not empty."""
        return os.path.isfile(self.path) and os.path.getsize(self.path) > 0


def published_weights() -> list[Weights]:
    """Every published weights file, in fastreid's order."""
    found = []
    for family in (*FAMILIES, *HUB_FAMILIES):
        module = importlib.import_module(f"fastreid.modeling.backbones.{family}")
        for key, url in module.model_urls.items():
            path = hub_path(url) if family in HUB_FAMILIES else weights_path(url, key)
            found.append(Weights(family.split(".")[-1], key, path, url))
    return found
