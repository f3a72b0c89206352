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


class _GhostForward:
    """Forward of a batch norm that treats each chunk of `samples_per_bn` images on its own."""

    samples_per_bn: int

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:  # type: ignore[attr-defined]
            return super().forward(x)  # type: ignore[misc]
        num_chunks = max(1, round(len(x) / self.samples_per_bn))
        first, *rest = torch.tensor_split(x, num_chunks)
        done = [super().forward(first)]  # type: ignore[misc]  # moves the running statistics
        for chunk in rest:
            done.append(
                F.batch_norm(chunk, None, None, self.weight, self.bias, True, 0.0, self.eps)  # type: ignore[attr-defined]
            )
        return torch.cat(done) if rest else done[0]


def split_batch_norm(model: nn.Module, samples_per_bn: int) -> int:
    """Makes every batch norm of a model work on contiguous chunks of the batch, in place.

    Names and values of parameters and buffers stay, so checkpoints do too. The running statistics
    follow the first chunk, as DataParallel's first replica did. A batch that is no multiple of
    `samples_per_bn` is cut into the nearest number of near-equal chunks. Evaluation is unchanged.

    Args:
        model: changed in place; SyncBatchNorm is left alone.
        samples_per_bn: images per chunk, at least 2; 0 leaves the model as it is.

    Returns:
        Number of layers changed.

    Cost: one copy of each normalised map. Source: the published settings, 64 for Cluster Contrast
    (arXiv:2103.11568, 256 images over 4 GPUs), 16 for SpCL (arXiv:2006.02713, 64 over 4).
    """
    if samples_per_bn == 0:
        return 0
    changed = 0
    for module in model.modules():
        left_alone = isinstance(module, nn.SyncBatchNorm | _GhostForward)
        if isinstance(module, _BatchNorm) and not left_alone:
            kind = type(module)
            module.__class__ = type(f"Ghost{kind.__name__}", (_GhostForward, kind), {})
            module.samples_per_bn = samples_per_bn  # type: ignore[assignment]
            changed += 1
    return changed


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Within it, a model in eval mode normalises with the statistics of each batch it is given.

    Running statistics are set aside and come back untouched. With batches of one camera each, this
    takes the camera's colour cast out of the features (see docs).
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
