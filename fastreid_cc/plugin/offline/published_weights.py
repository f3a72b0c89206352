"""Pretrained weights that fastreid can name: which are on this machine, where they belong."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from ..compat.imports import fastreid_module
from ..compat.weights import FAMILIES, weights_path

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
        for key, url in fastreid_module(f"modeling.backbones.{family}").model_urls.items():
            path = weights_path(url, key)
            if family in HUB_FAMILIES:
                path = os.path.join(torch.hub.get_dir(), "checkpoints", url.split("/")[-1])
            found.append(Weights(family.split(".")[-1], key, path, url))
    return found
