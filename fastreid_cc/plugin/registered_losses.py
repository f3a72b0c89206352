"""Registered losses inside a meta-architecture, on one feature or on several branches."""

from __future__ import annotations

import re
from typing import Any

import torch
from fastreid.modeling.losses import pairwise_circleloss, pairwise_cosface, triplet_loss
from torch import Tensor, nn

from ..batch_norm import split_batch_norm
from ..config import STOCK_LOSSES, build_part, loss_scale
from ..registry import LOSSES
from ..structures import Batch


def loss_key(name: str) -> str:
    """MemoryContrast -> loss_memory_contrast; fastreid's console prints names with "loss"."""
    return "loss_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def loss_arguments(cfg: Any) -> dict[str, Any]:
    """The registered losses a config names, their weights, and the batch-norm chunk.

    Raises:
        KeyError: for a loss that neither fastreid nor the plug-in knows (stock ignores it).
    """
    ours = [name for name in cfg.MODEL.LOSSES.NAME if name not in STOCK_LOSSES]
    return {
        "losses": {name: build_part(cfg, LOSSES, name) for name in ours},
        "scales": {name: loss_scale(cfg, name) for name in ours},
        "samples_per_bn": cfg.CC.SAMPLES_PER_BN,
    }


def is_statistics_only(targets: Tensor) -> bool:
    """Whether a batch has fastreid's sign of PreciseBN: every target is -1."""
    return bool((targets < 0).all())


class WithLosses:
    """Mixin of meta-architectures that compute registered losses, with labels or pseudo-labels.

    The memory is no part of the network: its rows change in number with every labelling, and a
    checkpoint has to load in stock fastreid. The pseudo-label hook hands it in by `watch`.

    Attributes:
        seen: the last training batch with detached features, for the memory's update.
    """

    registered_losses: nn.ModuleDict
    scales: dict[str, float]
    loss_kwargs: dict[str, Any]
    seen: Batch | None

    def add_losses(
        self, losses: dict[str, nn.Module], scales: dict[str, float], samples_per_bn: int
    ) -> None:
        """Takes what `loss_arguments` gave; called at the end of the constructor."""
        split_batch_norm(self, samples_per_bn)  # type: ignore[arg-type]
        self.registered_losses = nn.ModuleDict(losses)
        self.scales, self.seen = scales, None
        self._phase: tuple[Any, dict[str, nn.Module]] = (None, losses)

    def watch(self, memory: Any, losses: dict[str, nn.Module] | None = None) -> None:
        """Sets the memory, and the losses to use with it (default: those of the config)."""
        chosen = dict(self.registered_losses.items()) if losses is None else losses
        self._phase = (memory, chosen)

    def registered(
        self,
        branches: dict[str, Tensor],
        embedding: Tensor,
        targets: Tensor,
        inputs: dict[str, Any] | None,
    ) -> dict[str, Tensor]:
        """Registered losses by name, each times its SCALE.

        Args:
            branches: suffix of the loss's name -> features [B, D]. Losses without a memory see each
                branch, with weight 1 / number of branches.
            embedding: [B, D], what extraction sees; losses with a memory see it once.
            targets: i64 [B].
            inputs: the loader's batch; indices and cameras are 0 where it has none.
        Raises:
            RuntimeError: if a loss needs a memory and none is set.
        """
        memory, chosen = self._phase
        rest = [(inputs or {}).get(key, torch.zeros_like(targets)) for key in ("indices", "camids")]
        indices, cameras = (r.to(targets.device) for r in rest)
        found = {}
        for name, loss in chosen.items():
            if loss.needs_memory and memory is None:
                raise RuntimeError(
                    f"Loss {name} needs a memory, and none is set: it works with CC.ENABLED True"
                    " only."
                )
            scale = self.scales.get(name, 1.0)
            seen = {"": embedding} if loss.needs_memory else branches
            for suffix, features in seen.items():
                value = loss(Batch(features, targets, indices, cameras), memory)
                found[loss_key(name) + suffix] = value * (scale / len(seen))
        if memory is not None:
            self.seen = Batch(embedding.detach(), targets, indices, cameras)
        return found

    def stock_pairwise(self, branches: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """fastreid's losses that need no classifier, for heads that have none; as `registered`."""
        found, settings = {}, self.loss_kwargs
        names, weight = settings["loss_names"], 1 / len(branches)
        for suffix, features in branches.items():
            if "TripletLoss" in names:
                tri = settings["tri"]
                found[f"loss_triplet{suffix}"] = (weight * tri["scale"]) * triplet_loss(
                    features, targets, tri["margin"], tri["norm_feat"], tri["hard_mining"]
                )
            for name, key, function in (
                ("CircleLoss", "circle", pairwise_circleloss),
                ("Cosface", "cosface", pairwise_cosface),
            ):
                if name in names:
                    own = settings[key]
                    found[f"loss_{key}{suffix}"] = (weight * own["scale"]) * function(
                        features, targets, own["margin"], own["gamma"]
                    )
        return found
