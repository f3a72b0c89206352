"""What generators that are trained against a second network share."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Average:
    """Running average of a network over its training steps, batch norm's statistics included.

    Args:
        network: copied.
        momentum: weight of the old average in the long run; in step t it is (1 + t) / (10 + t) if
            that is less, so the random weights of the start are soon gone.

    Attributes:
        network: the average.
    """

    def __init__(self, network: nn.Module, momentum: float) -> None:
        self.network, self.momentum = copy.deepcopy(network).requires_grad_(False), momentum

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int) -> None:
        """Moves towards the network."""
        old = min(self.momentum, (1 + step) / (10 + step))
        for mine, theirs in zip(
            self.network.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - old)
            else:
                mine.copy_(theirs)


def set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """`rate` over the first half of the steps, then straight down to 0 after the last."""
    left = min(1.0, 2 * (steps - step) / steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * left


def trained_state(parts: Mapping[str, Any]) -> dict[str, Any]:
    """`state_dict` of each part, by name."""
    return {name: part.state_dict() for name, part in parts.items()}
