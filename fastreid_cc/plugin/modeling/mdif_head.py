"""MDIF: a head that also gives features fused over the domains' agents."""

from __future__ import annotations

from typing import Any

import torch
from fastreid.config import configurable
from fastreid.layers import get_norm
from fastreid.layers.weight_init import weights_init_kaiming
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from torch import nn

from ...config import source_names
from ...config.keys import arguments
from ...networks.domain_fusion import DomainFusion
from .cluster_contrast_head import ClusterContrastHead


@REID_HEADS_REGISTRY.register()
class MDIFHead(ClusterContrastHead):
    """ClusterContrastHead, and beside it a neck (and classifier) on fused features.

    The host's names are unchanged; what the fusion adds lies below `fusion`, `fused_neck` and
    `fused_weight`. Source: Bai et al., CVPR 2021; see `DomainFusion`, also for why the published
    fusion adds one constant per domain, which `fused_neck` subtracts: MODEL.HEADS.MDIF.FUSION
    similarity, ours, does not cancel.

    Differs from the paper: where the host contrasts with a memory, so do the fused features, with
    the same memory; a classifier of their own they have for the sources only.
    """

    @configurable
    def __init__(
        self,
        *,
        num_domains: int,
        evaluate: str,
        fusion: dict[str, Any],
        fused_scale: float,
        **host: Any,
    ) -> None:
        super().__init__(**host)
        if host["embedding_dim"] > 0:
            raise ValueError(
                f"MODEL.HEADS.EMBEDDING_DIM={host['embedding_dim']}: MDIFHead fuses pooled"
                " features; set it to 0."
            )
        size = self.feature_size
        self.evaluate, self.fused_scale = evaluate, fused_scale
        self.fusion = DomainFusion(size, num_domains, **fusion)
        self.fused_neck = nn.Sequential(get_norm(host["norm_type"], size, bias_freeze=True))
        self.fused_neck.apply(weights_init_kaiming)
        if self.num_classes:
            self.fused_weight = nn.Parameter(torch.empty_like(self.weight))
            nn.init.normal_(self.fused_weight, std=0.01)

    @classmethod
    def from_config(cls, cfg):
        """The host's arguments, the number of domains and MODEL.HEADS.MDIF."""
        node = cfg.MODEL.HEADS.MDIF
        return {
            **super().from_config(cfg),
            "num_domains": 1 + len(source_names(cfg)),
            "evaluate": node.EVALUATE,
            "fusion": arguments(cfg, DomainFusion),
            "fused_scale": node.SCALE,
        }

    def spare_parameters(self) -> list[nn.Parameter]:
        """The host's, and all that the fusion adds."""
        found = [*super().spare_parameters(), *self.fusion.parameters()]
        found += self.fused_neck.parameters()
        return [*found, self.fused_weight] if self.num_classes else found

    def pooled(self, features, domains=None):
        """Before its neck what MODEL.HEADS.MDIF.EVALUATE says: the fused features or the host's."""
        if self.evaluate == "host":
            return super().pooled(features, domains)
        return self._fused(features, domains)

    def _fused(self, features, domains):
        pooled = super().pooled(features)
        with torch.autocast(pooled.device.type, enabled=False):
            return self.fusion(pooled.float(), domains)

    def forward(self, features, targets=None, domains=None):
        """As ClusterContrastHead; in training also "fused", [B, D].

        Args:
            features: feature map [B, C, H, W].
            domains: i64 [B], 0 = target; None = all target.
        """
        outputs: Any = super().forward(features, targets)
        if not self.training and self.evaluate == "host":
            return outputs
        fused = self.fused_neck(self._fused(features, domains)[..., None, None])[..., 0, 0]
        return {**outputs, "fused": fused} if self.training else fused
