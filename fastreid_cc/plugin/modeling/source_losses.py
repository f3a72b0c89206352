"""A meta-architecture with labelled sources: a batch norm for each domain, losses for each part."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from fastreid.modeling.heads import EmbeddingHead
from torch import Tensor

from ...config import source_names
from ...errors import BadConfig
from ...networks.domain_batch_norm import Domains, convert, num_converted, target_parameters
from ...structures import Batch
from .cluster_contrast_head import ClusterContrastHead
from .registered_losses import WithLosses
from .step_context import StepContext
from .stock_losses import stock_losses

logger = logging.getLogger("fastreid.cc.sources")


def source_arguments(cfg: Any) -> dict[str, Any]:
    """What `WithSources.add_sources` takes, from CC.SOURCES."""
    sources = cfg.CC.SOURCES
    has_branches = cfg.CC.ENABLED and sources.BN != "shared"
    return {
        "losses": tuple(sources.LOSSES),
        "scale": float(sources.SCALE),
        "domains": source_names(cfg) if has_branches else (),
        "gate_scale": sources.GATE_SCALE if sources.BN == "rectified" else 0.0,
        "asked": f"CC.SOURCES.BN={sources.BN}, MODEL.BACKBONE.NAME={cfg.MODEL.BACKBONE.NAME}",
    }


class WithSources(WithLosses):
    """Mixin of meta-architectures with one backbone and one head, to which sources may be added."""

    heads: Any
    preprocess_image: Any  # of Baseline

    def add_sources(
        self,
        *,
        losses: tuple[str, ...],
        scale: float,
        domains: tuple[str, ...],
        gate_scale: float,
        asked: str,
    ) -> None:
        """Takes what `source_arguments` gave; called after `add_losses`.

        Args:
            losses: fastreid's losses of source images.
            scale: factor of all losses of source images.
            domains: names of the sources that get a batch norm of their own; () = all share one.
            gate_scale: see `domain_batch_norm.convert`; 0 = no gate.
            asked: the keys behind it, for messages.
        Raises:
            BadConfig: if sources are to have a batch norm and the backbone has none.
        """
        self.source_losses, self.source_scale = losses, scale
        self.domains = Domains(("target", *domains))
        if domains:
            convert(self.backbone, self.domains, gate_scale=gate_scale)
            convert(self.heads, self.domains)  # no gate: the neck's maps are single pixels
            num_layers = num_converted(self.backbone)
            if not num_layers:
                raise BadConfig(
                    f"{asked}: this backbone has no batch norm that domains could have branches of."
                    " Set CC.SOURCES.BN shared, or take a backbone with batch norm."
                )
            logger.info(
                f"batch norm by domain ({', '.join(self.domains.names)}): {num_layers} layers of"
                f" the backbone, {num_converted(self.heads)} of the head"
            )

    def images_of(
        self, domains: Tensor | None, *, complete: bool = False
    ) -> AbstractContextManager[None]:
        """Within it, batch norm takes the images to be of `domains`, i64 [B]; None = target.

        With `complete` a domain without an image is an error.
        """
        branches = domains if len(self.domains.names) > 1 else None
        return self.domains.of(branches, complete=complete)

    def for_head(self, domains: Tensor | None) -> dict[str, Tensor | None]:
        """Keyword arguments of the head: the domains, which fastreid's own heads do not know."""
        return {"domains": domains} if isinstance(self.heads, ClusterContrastHead) else {}

    def joint_losses(self, features: Tensor, batch: Batch, step: StepContext) -> dict[str, Tensor]:
        """Losses of a batch with sources: the target's, then those of all sources ("..._source").

        While source labels are trained on alone the target has no loss.
        """
        rows, found = batch.is_source, {}
        if step.trains_target:
            found = self.stock_pairwise({"": features[~rows]}, batch.targets[~rows])
        stock = self._labelled_losses(features[rows], batch.features[rows], batch.targets[rows])
        found |= {f"{key}_source": self.source_scale * value for key, value in stock.items()}
        if any(loss.needs_class_logits for loss in self.active_losses(step).values()):
            batch = replace(batch, class_logits=self.heads.class_logits(batch.features))
        return found | self.registered({"": features}, batch, step)

    def _labelled_losses(
        self, features: Tensor, embedding: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        """fastreid's losses of source images, in float32 whatever autocast does outside."""
        with torch.autocast(features.device.type, enabled=False):
            features, embedding, logits = features.float(), embedding.float(), None
            if "CrossEntropyLoss" in self.source_losses:
                logits = self.heads.classify(embedding, targets)
            return stock_losses(self.loss_kwargs, self.source_losses, features, targets, logits)

    def fused_losses(self, batch: Batch, step: StepContext) -> dict[str, Tensor]:
        """Losses "..._fused" of a head that fuses domains: memory's and classifier's.

        Args:
            batch: with the fused features [B, D]; the memory's update uses the host's instead.
            step: as in `registered`.
        """
        found = self.registered({}, batch, step)
        if batch.domains is not None and "CrossEntropyLoss" in self.source_losses:
            rows, name = batch.is_source, ("CrossEntropyLoss",)
            fused, targets = batch.features[rows], batch.targets[rows]
            logits = self.heads.classify(fused, targets, self.heads.fused_weight)
            stock = stock_losses(self.loss_kwargs, name, fused, targets, logits)
            found |= {f"{key}_source": self.source_scale * value for key, value in stock.items()}
        return {f"{key}_fused": self.heads.fused_scale * value for key, value in found.items()}

    def keep_in_graph(self, found: dict[str, Tensor], step: StepContext) -> dict[str, Tensor]:
        """Adds 0 times the parameters that a batch may not need, as DistributedDataParallel asks.

        These are the losses' own, the head's classifier and fusion, its neck where only losses of
        pooled features work, and the target's batch norm while source labels are trained on alone.
        """
        spare = [*self.registered_losses.parameters(), *self.warmup_losses.parameters()]
        if isinstance(self.heads, ClusterContrastHead):
            spare += self.heads.spare_parameters()
            losses = self.active_losses(step).values()
            on_neck = any(loss.needs_memory or loss.needs_teacher for loss in losses)
            if losses and not on_neck and self.heads.neck_feat == "before":
                spare += [p for p in self.heads.bottleneck.parameters() if p.requires_grad]
        elif isinstance(self.heads, EmbeddingHead):
            spare.append(self.heads.weight)
        if len(self.domains.names) > 1 and not step.trains_target:
            spare += target_parameters(self)
        if spare and found:
            key = next(iter(found))
            found[key] = found[key] + sum(parameter.sum() * 0 for parameter in spare)
        return found
