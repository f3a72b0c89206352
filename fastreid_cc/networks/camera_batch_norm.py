"""Batch norm that in training treats each camera's images of a batch on their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .replace_layers import replace_layers, specialise

FEWEST = 8  # images of a camera in a batch that get statistics of their own


class Cameras:
    """Whose images the forward at hand sees; one object for all layers of a model."""

    rows: list[Tensor] | None = None

    @contextmanager
    def of(self, cameras: Tensor, device: torch.device | str) -> Iterator[None]:
        """Within it, layers take the images to be of `cameras`, i64 [B].

        Cameras of fewer than `FEWEST` images share statistics, with the largest camera too where
        they are too few together.
        """
        listed = cameras.cpu()
        values, counts = listed.unique(return_counts=True)
        own = values[counts >= FEWEST]
        groups = [torch.nonzero(listed == value)[:, 0] for value in own]
        rest = torch.nonzero(~torch.isin(listed, own))[:, 0]
        if len(rest) >= FEWEST or not groups:
            groups.append(rest)
        elif len(rest):
            largest = max(range(len(groups)), key=lambda i: len(groups[i]))
            groups[largest] = torch.cat([groups[largest], rest])
        self.rows = [rows.to(device) for rows in groups] if len(groups) > 1 else None
        try:
            yield
        finally:
            self.rows = None


class CameraBatchNorm(_BatchNorm):
    """Made by `split_by_camera`.

    Attributes:
        cameras: tells whose images the forward at hand sees.
    """

    cameras: Cameras

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x [B, C, ...]; in training every camera moves the running statistics."""
        rows = self.cameras.rows
        if rows is None or not self.training:
            return super().forward(x)
        found = torch.cat([super(CameraBatchNorm, self).forward(x[own]) for own in rows])
        return found[torch.argsort(torch.cat(rows))]


def split_by_camera(model: nn.Module) -> Cameras:
    """Replaces every batch norm of a model by one that treats cameras on their own in training.

    Names, values and order of parameters and buffers stay. Evaluation is unchanged; it fits with
    the statistics of each camera there too (CC.EXTRACT.BN, TEST.BN).

    Args:
        model: changed in place; SyncBatchNorm is left alone.

    Cost: two copies of each normalised map. Source: Zhuang et al., Rethinking the Distribution Gap
    of Person Re-identification with Camera-based Batch Normalization, ECCV 2020. Differs: batches
    hold several cameras; cameras with few images in a batch share statistics.
    """
    cameras = Cameras()

    def replacement(layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, _BatchNorm) or isinstance(
            layer, nn.SyncBatchNorm | CameraBatchNorm
        ):
            return None
        made = specialise(layer, CameraBatchNorm)
        made.cameras = cameras
        return made

    replace_layers(model, replacement)
    return cameras
