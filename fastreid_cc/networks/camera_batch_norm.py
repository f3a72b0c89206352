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

    sizes: list[int] | None = None

    @contextmanager
    def of(self, sizes: list[int]) -> Iterator[None]:
        """Within it, a batch is of so many images of one group after the other."""
        self.sizes = sizes if len(sizes) > 1 else None
        try:
            yield
        finally:
            self.sizes = None


def groups_of(cameras: Tensor) -> tuple[Tensor, list[int]]:
    """How the images of a batch share statistics.

    Cameras of fewer than `FEWEST` images do so together, with the largest camera too where even
    then they are too few.

    Args:
        cameras: i64 [B], on the CPU.
    Returns:
        (i64 [B], positions group by group; sizes of the groups).

    >>> groups_of(torch.tensor([1, 0] * 8 + [2]))[1]
    [9, 8]
    """
    values, counts = cameras.unique(return_counts=True)
    own = values[counts >= FEWEST]
    groups = [torch.nonzero(cameras == value)[:, 0] for value in own]
    rest = torch.nonzero(~torch.isin(cameras, own))[:, 0]
    if len(rest) >= FEWEST or not groups:
        groups.append(rest)
    elif len(rest):
        largest = max(range(len(groups)), key=lambda i: len(groups[i]))
        groups[largest] = torch.cat([groups[largest], rest])
    return torch.cat(groups), [len(group) for group in groups if len(group)]


class CameraBatchNorm(_BatchNorm):
    """Made by `split_by_camera`.

    Attributes:
        cameras: tells whose images the forward at hand sees.
    """

    cameras: Cameras

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x [B, C, ...]; in training every camera moves the running statistics."""
        if self.cameras.sizes is None or not self.training:
            return super().forward(x)
        return torch.cat(
            [super(CameraBatchNorm, self).forward(x) for x in x.split(self.cameras.sizes)]
        )


def split_by_camera(model: nn.Module) -> Cameras:
    """Replaces every batch norm of a model by one that treats cameras on their own in training.

    Names, values and order of parameters and buffers stay. Evaluation is unchanged; it fits with
    the statistics of each camera there too (CC.EXTRACT.BN, TEST.BN).

    Args:
        model: changed in place; SyncBatchNorm is left alone.

    Cost: one copy of each normalised map. Source: Zhuang et al., Rethinking the Distribution Gap
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
