"""A meta-architecture with labelled sources: a batch norm for each domain, losses for each part."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ...networks.domain_batch_norm import Domains, convert, target_parameters
from .registered_losses import WithLosses
from .stock_losses import stock_losses


def source_arguments(cfg: Any) -> dict[str, Any]:
    """What `WithSources.add_sources` takes, from CC.SOURCES."""
    sources = cfg.CC.SOURCES
    has_branches = cfg.CC.ENABLED and sources.BN != "shared"
    return {
        "losses": tuple(sources.LOSSES),
        "weight": float(sources.WEIGHT),
        "domains": tuple(sources.NAMES) if has_branches else (),
        "gate_scale": sources.GATE_SCALE if sources.BN == "rectified" else 0.0,
    }


class WithSources(WithLosses):
    """Mixin of meta-architectures with one backbone and one head, to which sources may be added."""

    backbone: Any
    heads: Any
    training: bool

    def add_sources(
        self, *, losses: tuple[str, ...], weight: float, domains: tuple[str, ...], gate_scale: float
    ) -> None:
        """Takes what `source_arguments` gave; called after `add_losses`.

        Args:
            losses: fastreid's losses of source images.
            weight: factor of all losses of source images.
            domains: names of the sources that get a batch norm of their own; () = all share one.
            gate_scale: see `domain_norm.convert`; 0 = no gate.
        """
        self.source_losses, self.source_weight = losses, weight
        self.domains = Domains(("target", *domains))
        if domains:
            convert(self.backbone, self.domains, gate_scale=gate_scale)
            convert(self.heads, self.domains)  # no gate: the neck's maps are single pixels
        self._head_takes_domains = "domains" in inspect.signature(self.heads.forward).parameters

    def images_of(self, domains: Tensor | None) -> AbstractContextManager[None]:
        """Within it, batch norm takes the images to be of `domains`, i64 [B]; None = target."""
        branches = domains if len(self.domains.names) > 1 else None
        sees_target = self._phase[0] is not None  # not while source labels are trained on alone
        return self.domains.of(branches, complete=self.training and sees_target)

    def for_head(self, domains: Tensor | None) -> dict[str, Tensor | None]:
        """Keyword arguments of the head: the domains, if it asks for them."""
        return {"domains": domains} if self._head_takes_domains else {}

    def joint_losses(
        self, features: Tensor, embedding: Tensor, targets: Tensor, inputs: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Losses of a batch with sources: the target's, then those of all sources ("..._source").

        While source labels are trained on alone there is no memory, and the target has no loss.
        """
        source = inputs["domains"].to(targets.device) > 0
        found: dict[str, Tensor] = {}
        if self._phase[0] is not None:
            found |= self.stock_pairwise({"": features[~source]}, targets[~source])
        stock = self.labelled_losses(features[source], embedding[source], targets[source])
        found |= {f"{key}_source": self.source_weight * value for key, value in stock.items()}
        return found | self.registered({"": features}, embedding, targets, inputs)

    def labelled_losses(
        self, features: Tensor, embedding: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        """fastreid's losses of source images, in float32 whatever autocast does outside."""
        with torch.autocast(features.device.type, enabled=False):
            features, embedding, logits = features.float(), embedding.float(), None
            if "CrossEntropyLoss" in self.source_losses:
                logits = self.heads.classify(embedding, targets)
            return stock_losses(self.loss_kwargs, self.source_losses, features, targets, logits)

    def fused_losses(
        self, fused: Tensor, targets: Tensor, inputs: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Losses "..._fused" of a head that fuses domains: memory's and classifier's."""
        seen = self.seen  # the memory moves by the host's features
        found = self.registered({}, fused, targets, inputs)
        self.seen = seen
        if "domains" in inputs and "CrossEntropyLoss" in self.source_losses:
            rows = inputs["domains"].to(targets.device) > 0
            logits = self.heads.classify_fused(fused[rows], targets[rows])
            name = ("CrossEntropyLoss",)
            stock = stock_losses(self.loss_kwargs, name, fused[rows], targets[rows], logits)
            found |= {f"{key}_source": self.source_weight * value for key, value in stock.items()}
        return {f"{key}_fused": self.heads.fused_scale * value for key, value in found.items()}

    def keep_in_graph(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leaves parameters that no image of the batch needs in the graph, as DDP demands."""
        spare = [*self.registered_losses.parameters()]
        spare += [p for name, p in self.heads.named_parameters() if is_spare(name)]
        if len(self.domains.names) > 1 and self._phase[0] is None:  # no image of the target yet
            spare += target_parameters(self)  # type: ignore[arg-type]
        if spare and found:
            key = next(iter(found))
            found[key] = found[key] + sum(parameter.sum() * 0 for parameter in spare)
        return found


def is_spare(name: str) -> bool:
    """Whether a stage may leave a parameter of the head out: classifiers, fusion."""
    return name == "weight" or name.startswith(("fus", "cls_layer."))
