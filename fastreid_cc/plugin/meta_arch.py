"""The meta-architecture of label-free training: fastreid's Baseline with registered losses."""

from __future__ import annotations

import re
from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.losses import pairwise_circleloss, pairwise_cosface, triplet_loss
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from torch import Tensor, nn

from ..batch_norm import split_batch_norm
from ..config import STOCK_LOSSES, build_part, loss_scale
from ..registry import LOSSES
from ..structures import Batch


def loss_key(name: str) -> str:
    """MemoryContrast -> loss_memory_contrast; fastreid's console prints names with "loss"."""
    return "loss_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@META_ARCH_REGISTRY.register()
class ClusterContrast(Baseline):
    """Baseline that also computes the registered losses, with true labels or pseudo-labels.

    The memory is no part of the network: its rows change in number with every labelling, and a
    checkpoint has to load in stock fastreid. The pseudo-label hook hands it in by `watch`.

    Attributes:
        seen: the last training batch with detached features, for the memory's update.
    """

    @configurable
    def __init__(self, *, losses, scales, samples_per_bn, **baseline):
        super().__init__(**baseline)
        split_batch_norm(self, samples_per_bn)
        self.registered_losses = nn.ModuleDict(losses)
        self.scales: dict[str, float] = scales
        self.seen: Batch | None = None
        self._phase: tuple[Any, dict[str, nn.Module]] = (None, losses)

    @classmethod
    def from_config(cls, cfg):
        """Baseline's arguments, the registered losses and their weights.

        Raises:
            KeyError: for a loss that neither fastreid nor the plug-in knows (stock ignores it).
        """
        ours = [n for n in cfg.MODEL.LOSSES.NAME if n not in STOCK_LOSSES]
        return {
            **super().from_config(cfg),
            "losses": {name: build_part(cfg, LOSSES, name) for name in ours},
            "scales": {name: loss_scale(cfg, name) for name in ours},
            "samples_per_bn": cfg.CC.SAMPLES_PER_BN,
        }

    def watch(self, memory: Any, losses: dict[str, nn.Module] | None = None) -> None:
        """Sets the memory, and the losses to use with it (default: those of the config)."""
        chosen = dict(self.registered_losses.items()) if losses is None else losses
        self._phase = (memory, chosen)

    def forward(self, batched_inputs):
        """Features [B, D] in evaluation, a dict of scalar losses in training."""
        features = self.backbone(self.preprocess_image(batched_inputs))
        if not self.training:
            return self.heads(features)
        targets = batched_inputs["targets"].to(self.device)
        is_precise_bn = bool(targets.sum() < 0)  # fastreid's sign: statistics only
        outputs = self.heads(features, targets.clamp_min(0) if is_precise_bn else targets)
        if is_precise_bn:
            return {"loss_none": outputs["features"].sum() * 0}
        return self.losses(outputs, targets, batched_inputs)

    def losses(self, outputs, gt_labels, batched_inputs=None):
        """Stock losses by fastreid's own code, registered ones by theirs, each times its SCALE."""
        found = super().losses(outputs, gt_labels) if "cls_outputs" in outputs else {}
        if not found:
            found = self._stock_pairwise(outputs["features"], gt_labels)
        memory, registered = self._phase
        batch = self._batch(outputs["features"], gt_labels, batched_inputs)
        embedded = self._batch(outputs.get("embedding", batch.features), gt_labels, batched_inputs)
        for name, loss in registered.items():
            if loss.needs_memory and memory is None:
                raise RuntimeError(
                    f"Loss {name} needs a memory, and none is set: it works with CC.ENABLED True"
                    " only."
                )
            value = loss(embedded if loss.needs_memory else batch, memory)
            found[loss_key(name)] = value * self.scales.get(name, 1.0)
        if memory is not None:
            self.seen = Batch(
                embedded.features.detach(), embedded.targets, embedded.indices, embedded.cameras
            )
        return found

    def _batch(self, features: Tensor, targets: Tensor, inputs: dict[str, Any] | None) -> Batch:
        """What losses see; indices and cameras are 0 where the loader gives none."""
        rest = [(inputs or {}).get(key, torch.zeros_like(targets)) for key in ("indices", "camids")]
        return Batch(features, targets, *(r.to(targets.device) for r in rest))

    def _stock_pairwise(self, features: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """fastreid's losses that need no classifier, for heads that have none."""
        found, settings = {}, self.loss_kwargs
        names = settings["loss_names"]
        if "TripletLoss" in names:
            tri = settings["tri"]
            found["loss_triplet"] = tri["scale"] * triplet_loss(
                features, targets, tri["margin"], tri["norm_feat"], tri["hard_mining"]
            )
        for name, key, function in (
            ("CircleLoss", "circle", pairwise_circleloss),
            ("Cosface", "cosface", pairwise_cosface),
        ):
            if name in names:
                own = settings[key]
                found[f"loss_{key}"] = own["scale"] * function(
                    features, targets, own["margin"], own["gamma"]
                )
        return found
