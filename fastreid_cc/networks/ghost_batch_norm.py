"""Batch norm over contiguous chunks of the batch, and with the statistics of the batch at hand.

Clustering re-ID was tuned on several GPUs under DataParallel, where batch norm sees 64 images
(Cluster Contrast) or 16 (SpCL) of the batch; one GPU with the same batch loses many mAP. Chunked
statistics give one process the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .replace_layers import replace_layers, specialise


class GhostBatchNorm(_BatchNorm):
    """Batch norm that in training treats each chunk of `samples_per_bn` images on its own.

    Made by `split_batch_norm`.
    """

    samples_per_bn: int

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x [B, C, ...]; in training the first chunk moves the running statistics."""
        if not self.training:
            return super().forward(x)
        num_chunks = max(1, round(len(x) / self.samples_per_bn))
        first, *rest = torch.tensor_split(x, num_chunks)
        own = self.weight, self.bias, True, 0.0, self.eps
        done = [super().forward(first), *(F.batch_norm(chunk, None, None, *own) for chunk in rest)]
        return torch.cat(done) if rest else done[0]


def split_batch_norm(model: nn.Module, samples_per_bn: int) -> nn.Module:
    """Replaces every batch norm of a model by one that works on contiguous chunks of the batch.

    Names, values and order of parameters and buffers stay, so checkpoints do too. The running
    statistics follow the first chunk, as DataParallel's first replica did. A batch that is no
    multiple of `samples_per_bn` is cut into the nearest number of near-equal chunks. Evaluation is
    unchanged.

    Args:
        model: changed in place; SyncBatchNorm is left alone.
        samples_per_bn: images per chunk, at least 2; 0 leaves the model as it is.

    Returns:
        The model; another one only if it is itself a batch norm.

    Cost: one copy of each normalised map. Source: the published settings, 64 for Cluster Contrast
    (arXiv:2103.11568, 256 images over 4 GPUs), 16 for SpCL (arXiv:2006.02713, 64 over 4).

    >>> split_batch_norm(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), 64)[1].samples_per_bn
    64
    """

    def replacement(layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, _BatchNorm) or isinstance(
            layer, nn.SyncBatchNorm | GhostBatchNorm
        ):
            return None
        made = specialise(layer, GhostBatchNorm)
        made.samples_per_bn = samples_per_bn
        return made

    return replace_layers(model, replacement) if samples_per_bn else model


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Within it, a model in eval mode normalises with the statistics of each batch it is given.

    Running statistics are set aside and come back untouched. With batches of one camera each, this
    takes the camera's colour cast out of the features.
    """
    aside = [
        (module, module.running_mean, module.running_var)
        for module in model.modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
    ]
    try:
        for module, _, _ in aside:
            module.running_mean = module.running_var = None
        yield
    finally:
        for module, mean, var in aside:
            module.running_mean, module.running_var = mean, var
