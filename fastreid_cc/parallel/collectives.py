"""torch.distributed in a few functions; each is the identity when there is one process.

Rows are gathered in rank order, so every rank holds the same bytes afterwards. Label making can
outlast the default time limit of a process group, so objects travel in a gloo group of their own.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

LABELLING_MINUTES = 720.0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, 0 alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel; the model itself if it is not wrapped."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


class _PatientGroup:
    """A gloo group of all processes, made when it is first needed."""

    def __init__(self) -> None:
        self.minutes = LABELLING_MINUTES
        self.world: Any = None
        self.group: Any = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Any]:
        """The group to wait in; names the key where that takes too long."""
        if self.world is not dist.group.WORLD:  # none yet, or that of a job before
            limit = datetime.timedelta(minutes=self.minutes)
            self.world, self.group = dist.group.WORLD, dist.new_group(backend="gloo", timeout=limit)
        try:
            yield self.group
        except RuntimeError as error:
            if "timed out" not in str(error).lower():
                raise
            raise TimeoutError(
                f"Process {rank()} of {world_size()} waited {self.minutes:g} minutes for another,"
                " which makes labels or hangs. If labels take that long, raise"
                " CC.LABEL_TIMEOUT_MINUTES."
            ) from error


_patient_group = _PatientGroup()


def set_label_timeout(minutes: float) -> None:
    """Sets how long a process waits for labels; called by all, before the first object travels."""
    _patient_group.minutes, _patient_group.world = minutes, None


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
    """The value of every rank, in rank order, on every rank. Uneven arrays are fine.

    Raises:
        TimeoutError: after `set_label_timeout`, here and below.
    """
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with _patient_group() as group:
        dist.all_gather_object(values, value, group=group)
    return values


def collect_objects(value: Any) -> list[Any]:
    """`gather_objects` on rank 0 only; an empty list elsewhere."""
    if world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * world_size() if rank() == 0 else None
    with _patient_group() as group:
        dist.gather_object(value, values, dst=0, group=group)
    return values or []


def broadcast_object(value: Any) -> Any:
    """Rank 0's value on every rank. Waits as long as label making may take."""
    if world_size() == 1:
        return value
    box = [value]
    with _patient_group() as group:
        dist.broadcast_object_list(box, src=0, group=group)
    return box[0]
