"""Cluster memory: one row per source class and per cluster (Cluster Contrast)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import MEMORIES
from ..structures import Batch
from . import updates
from .base import Memory, State


@MEMORIES.register("cluster")
class ClusterMemory(Memory):
    """One row per source class and per cluster (Cluster Contrast); outliers are not trained.

    Args:
        temperature: logits are cosines divided by it.
        momentum: weight of the old row: new = unit(momentum * old + (1 - momentum) * feature).
        update: "all": each image of the batch moves its row, one by one in batch order (process
            by process); the result depends on that order. "hard": only the image least similar to
            its row. "mean": the mean of the row's images, once (not scaled to unit length, as in
            SpCL's text). "random": one image of the row, drawn at random; with momentum 0 it
            replaces the row (real-time memory).
        init: "mean": unit mean of the members. "random": one member, drawn at random.

    Cost of a step: B·(S+C)·D multiply-adds for logits, O(B·D) for the update; (S+C)·D floats.
    Source: Dai et al., Cluster Contrast, arXiv:2103.11568 (final text: mean, all; first version:
    random, hard); "random" after Yin et al., RTMem, TIP 2023, from its description only.
    Differs from the authors' code: the update is a call of its own instead of a side effect of
    backward; same numbers (tests/test_cluster_memory.py).

    >>> memory = ClusterMemory(momentum=0.5)
    >>> memory.reset(torch.eye(3), torch.tensor([0, 0, -1]))
    >>> memory.rows
    tensor([[0.7071, 0.7071, 0.0000]])
    >>> memory.update(Batch.of(torch.eye(3)[:1], torch.tensor([0])))
    >>> memory.rows
    tensor([[0.9239, 0.3827, 0.0000]])
    """

    limits = {"update": ("all", "hard", "mean", "random"), "init": ("mean", "random")}

    def __init__(
        self,
        *,
        temperature: float = 0.05,
        momentum: float = 0.1,
        update: str = "all",
        init: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, momentum=momentum)
        self.rule = update
        self.init = init
        self.generator = torch.Generator()

    def reset_rows(
        self,
        features: Tensor,
        labels: Tensor,
        cameras: Tensor | None,
        sources: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Sets each row to the unit mean, or to one member, of its cluster."""
        rows = self.cluster_means(features, labels)
        if self.init == "random":
            draw = torch.rand(len(labels), generator=generator, device=generator.device)
            chosen = updates.representatives(labels.cpu(), draw.cpu())
            rows = F.normalize(features[chosen.to(features.device)])
        self.set_buffer("rows", torch.cat([sources, rows]))
        seed = torch.randint(2**31, (), generator=generator, device=generator.device)
        self.generator.manual_seed(int(seed))

    def update_rows(self, features: Tensor, batch: Batch) -> None:
        """Moves the rows of the batch's targets by the chosen rule."""
        if self.rule == "random":
            draw = torch.rand(len(features), generator=self.generator).to(features.device)
            updates.update_least(self.rows, batch.targets, features, self.current_momentum, draw)
            return
        updates.RULES[self.rule](self.rows, batch.targets, features, self.current_momentum)

    def get_state(self) -> State:
        """Adds the state of the generator of the "random" rule."""
        return {**super().get_state(), "generator": self.generator.get_state()}

    def set_state(self, state: State) -> None:
        """Restores rows and generator."""
        super().set_state(state)
        self.generator.set_state(state["generator"].cpu())
