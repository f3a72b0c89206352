"""What keeps processes in step: batch-norm statistics made equal, memories compared by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from .collectives import gather_objects, world_size


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Gives all processes rank 0's buffers: batch-norm statistics, which DDP leaves apart.

    Cost: one message per dtype, all buffers in it.
    """
    if world_size() == 1:
        return
    alike: dict[Any, list[Tensor]] = {}
    for buffer in model.buffers():
        alike.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    for buffers in alike.values():
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
        dist.broadcast(flat, 0)
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))


def digest(state: Any) -> bytes:
    """Eight bytes that tell states apart: of tensors and arrays, numbers and text, in dicts, lists.

    Types, shapes and every byte count. Cost: one copy to the CPU and one pass.
    """
    found = hashlib.blake2b(digest_size=8)
    _feed(found, state)
    return found.digest()


def _feed(found: Any, state: Any) -> None:
    if isinstance(state, Mapping):
        for key in sorted(state):
            found.update(f"{key}:".encode())
            _feed(found, state[key])
    elif isinstance(state, (list, tuple)):
        found.update(f"[{len(state)}".encode())
        for item in state:
            _feed(found, item)
    elif isinstance(state, Tensor):
        _feed(found, state.detach().cpu().numpy())
    elif isinstance(state, np.ndarray):
        found.update(f"{state.dtype}{state.shape}".encode())
        found.update(np.ascontiguousarray(state).reshape(-1).view(np.uint8))
    else:
        found.update(f"{type(state).__name__} {state!r};".encode())


def refuse_if_apart(what: str, state: Any) -> None:
    """Raises RuntimeError on every process unless all hold the same bytes.

    Args:
        what: names the state and the time, for the message.
        state: see `digest`.

    Cost: a digest, and eight bytes from each process.
    """
    versions: dict[bytes, list[int]] = {}
    for rank, found in enumerate(gather_objects(digest(state))):
        versions.setdefault(found, []).append(rank)
    if len(versions) > 1:
        groups = " | ".join(", ".join(map(str, ranks)) for ranks in versions.values())
        raise RuntimeError(
            f"{what} differs between processes; those with the same bytes: {groups}. They would"
            " train apart from here on, so all end. Causes: other hardware or another torch on one"
            " of them, or a part that draws from a global generator. --resume goes on from the last"
            " checkpoint; one process cannot differ."
        )
