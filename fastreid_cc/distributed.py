"""torch.distributed in five functions; each is the identity when there is one process.

Rows are gathered in rank order, so every rank holds the same bytes afterwards. Label making can
outlast the default time limit of a process group, so arrays travel in a gloo group of their own.
"""

from __future__ import annotations

import datetime
import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

_LABELLING_LIMIT = datetime.timedelta(hours=12)


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, 0 alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@functools.lru_cache(maxsize=1)
def _cpu_group() -> Any:
    return dist.new_group(backend="gloo", timeout=_LABELLING_LIMIT)


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenates [B_r, ...] of all ranks in rank order; no gradient. B_r is the same everywhere.

    Raises:
        RuntimeError: from torch, if the ranks' shapes differ.
    """
    if world_size() == 1:
        return rows.detach()
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    return torch.cat(parts)


def gather_rows_with_grad(rows: Tensor) -> Tensor:
    """`gather_rows` whose own slice carries the gradient.

    Summing the losses' gradients over ranks (what DDP does, before it divides by their number) then
    gives the gradient of the whole batch, if each rank computes the loss of all rows.
    """
    if world_size() == 1:
        return rows
    parts = list(gather_rows(rows).split(len(rows)))
    parts[rank()] = rows
    return torch.cat(parts)


def gather_objects(value: Any) -> list[Any]:
    """The value of every rank, in rank order, on every rank. Uneven arrays are fine."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_cpu_group())
    return values


def broadcast_object(value: Any) -> Any:
    """Rank 0's value on every rank. Waits as long as label making may take (12 h)."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_cpu_group())
    return box[0]


def gather_array(rows: np.ndarray) -> np.ndarray:
    """Concatenates arrays of all ranks in rank order; lengths may differ."""
    return np.concatenate(gather_objects(rows)) if world_size() > 1 else rows
