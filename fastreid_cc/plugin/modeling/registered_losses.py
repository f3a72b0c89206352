"""Registered losses inside a meta-architecture, on one feature or on several branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...config import STOCK_LOSSES, build_part
from ...errors import BadConfig
from ...losses.base import Loss
from ...losses.memory_contrast import MemoryContrast
from ...networks.ghost_batch_norm import split_batch_norm
from ...registry import LOSSES
from ...structures import Batch
from .feature_maps import find_layer
from .step_context import StepContext
from .stock_losses import stock_losses


class InstanceContrast(MemoryContrast):
    """MemoryContrast in the warm-up: plain, whatever its keys say of the epochs that follow."""

    log_name = MemoryContrast.log_name

    def factor(self, part: Literal["target", "source"], scale: float, source_scale: float) -> float:
        """Always 1."""
        return 1.0


def loss_arguments(cfg: Any) -> dict[str, Any]:
    """The registered losses a config names, their scales, and the batch-norm chunk.

    Raises:
        KeyError: for a loss that neither fastreid nor the plug-in knows (stock ignores it).
    """
    ours = [name for name in cfg.MODEL.LOSSES.NAME if name not in STOCK_LOSSES]
    warm_up = cfg.CC.WARMUP.LOSSES if cfg.CC.ENABLED and cfg.CC.WARMUP.EPOCHS else ()
    return {
        "losses": {name: build_part(cfg, LOSSES, name) for name in ours},
        "warmup_losses": {
            name: InstanceContrast() if name == "MemoryContrast" else build_part(cfg, LOSSES, name)
            for name in warm_up
        },
        "scales": {name: float(cfg.MODEL.LOSSES[name].SCALE) for name in (*ours, *warm_up)},
        "samples_per_bn": cfg.CC.SAMPLES_PER_BN,
    }


def refuse_memory_losses(cfg: Any) -> None:
    """Before a training with true labels: no memory, no views, no places of images there.

    Raises:
        BadConfig: naming the losses that read one.
    """
    classes: dict[str, type[Loss]] = {name: LOSSES.get(name) for name in LOSSES.names()}
    views = [name for name in cfg.MODEL.LOSSES.NAME if name in classes]
    views = [name for name in views if classes[name].needs_views]
    if views:
        raise BadConfig(
            f"MODEL.LOSSES.NAME holds {', '.join(views)}, which compares views of an image: they"
            " are drawn in the warm-up of CC.ENABLED True alone. Name it in CC.WARMUP.LOSSES."
        )
    if "Prototypes" in cfg.MODEL.LOSSES.NAME and cfg.MODEL.LOSSES.Prototypes.SHOTS:
        raise BadConfig(
            f"MODEL.LOSSES.Prototypes.SHOTS={cfg.MODEL.LOSSES.Prototypes.SHOTS} parts images by"
            " their place in the data set, which batches hold with CC.ENABLED True alone. Set it 0:"
            " every image is a query then."
        )
    reading = [name for name, loss in classes.items() if loss.needs_memory]
    found = [name for name in cfg.MODEL.LOSSES.NAME if name in reading]
    if found:
        without = [name for name in classes if name not in reading]
        raise BadConfig(
            f"MODEL.LOSSES.NAME holds {', '.join(found)}, which needs the memory that CC.ENABLED"
            " True fills; it is False. Set CC.ENABLED True to learn without labels, or choose among"
            f" {', '.join([*STOCK_LOSSES, *without])} to learn with them."
        )


def is_statistics_only(targets: Tensor) -> bool:
    """Whether a batch has fastreid's sign of PreciseBN: every target is -1."""
    return bool((targets < 0).all())


def batch_of(
    features: Tensor,
    targets: Tensor,
    inputs: Mapping[str, Any],
    maps: Mapping[str, Tensor] | None = None,
) -> Batch:
    """The loader's batch with its features [B, D]; indices and cameras are 0 where it has none.

    `maps` are those of the backbone that losses read.
    """
    keys = {"indices": "indices", "cameras": "camids", "domains": "domains"}
    keys |= {"roles": "roles", "views": "views"}
    given = {name: inputs[key].to(targets.device) for name, key in keys.items() if key in inputs}
    teacher_features = inputs.get("teacher_features")
    return Batch.of(features, targets, **given, teacher_features=teacher_features, **(maps or {}))


def batch_to_keep(batch: Batch, step: StepContext) -> Batch | None:
    """What the memory's update needs of a batch, without gradient; None without a memory."""
    if step.memory is None:
        return None
    own = ("teacher_features", "roles", "class_logits", "views", "fine_map", "coarse_map")
    without: Any = dict.fromkeys(own)
    return replace(batch, features=batch.features.detach(), **without)


class WithLosses(nn.Module):
    """Mixin of meta-architectures that compute registered losses, with labels or pseudo-labels.

    Attributes:
        step: what the hooks tell the network, and what it tells them.
        num_networks: networks that train side by side, each with a memory of its own.
        keeps_statistics: whether batch norm keeps its running statistics in training, and
            normalises by them; set before `train()` is called.
    """

    num_networks: ClassVar[int] = 1
    backbone: Any
    registered_losses: nn.ModuleDict
    warmup_losses: nn.ModuleDict
    scales: dict[str, float]
    step: StepContext
    loss_kwargs: dict[str, Any]
    source_scale: float = 1.0
    keeps_statistics: bool = False

    def train(self, mode: bool = True) -> WithLosses:
        """The mode of all layers; batch norm that keeps its statistics evaluates in every mode."""
        super().train(mode)
        if self.keeps_statistics:
            for layer in self.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self

    def add_losses(
        self,
        losses: dict[str, Loss],
        warmup_losses: dict[str, Loss],
        scales: dict[str, float],
        samples_per_bn: int,
    ) -> None:
        """Takes what `loss_arguments` gave; called at the end of the constructor.

        Raises:
            BadConfig: if a loss reads a layer that the backbone does not have.
        """
        split_batch_norm(self, samples_per_bn)
        self.registered_losses = nn.ModuleDict(losses)
        self.warmup_losses = nn.ModuleDict(warmup_losses)
        for name, loss in (*losses.items(), *warmup_losses.items()):
            for layer in loss.maps.values():
                find_layer(self.backbone, layer, f"MODEL.LOSSES.{name}")
        self.scales, self.step = scales, StepContext()

    def active_losses(self, step: StepContext) -> dict[str, Loss]:
        """The losses of the stage by name: those of CC.WARMUP, else those of MODEL.LOSSES."""
        losses: Any = self.warmup_losses if step.is_warm_up else self.registered_losses
        if step.sources_only:
            has_rows = step.memory is not None
            return {k: loss for k, loss in losses.items() if loss.learns_from_sources and has_rows}
        if not step.is_warm_up and step.loss_stage is not None:
            losses = {name: loss for name, loss in losses.items() if name in step.loss_stage}
        scale_of = self.scales.get  # nothing is mined for a scale of 0
        return {k: v for k, v in losses.items() if not v.needs_roles or scale_of(k, 1.0) > 0}

    @contextmanager
    def stock_losses_of(self, step: StepContext) -> Iterator[None]:
        """Within it, fastreid's own losses are those of `step.loss_stage`."""
        whole = self.loss_kwargs
        if step.loss_stage is not None:
            names = tuple(name for name in whole["loss_names"] if name in step.loss_stage)
            self.loss_kwargs = {**whole, "loss_names": names}
        try:
            yield
        finally:
            self.loss_kwargs = whole

    def is_taught(self, step: StepContext) -> bool:
        """Whether a loss of the stage learns from a teacher, and there is one."""
        needed = any(loss.needs_teacher for loss in self.active_losses(step).values())
        return needed and step.teacher is not None

    def registered(
        self, branches: dict[str, Tensor], batch: Batch, step: StepContext
    ) -> dict[str, Tensor]:
        """Registered losses by name, each times its `factor`.

        In a batch with sources, once for the target's images, and again, as "loss_..._source", for
        those of all sources.

        Args:
            branches: suffix of the loss's name -> features [B, D]. Losses without a memory see each
                branch, with weight 1 / number of branches.
            batch: its features [B, D] are what extraction sees; losses with a memory, and losses of
                mined images, see them.
            step: memory, teacher and losses.
        """
        if batch.domains is None:
            return self._of_part("target", branches, batch, step)
        found = self._of_part("source", branches, batch, step)
        found = {f"{key}_source": value for key, value in found.items()}
        if step.trains_target:
            found |= self._of_part("target", branches, batch, step)
        return found

    def _of_part(
        self,
        part: Literal["target", "source"],
        branches: dict[str, Tensor],
        batch: Batch,
        step: StepContext,
    ) -> dict[str, Tensor]:
        """Registered losses of the images of the target or of the sources."""
        if batch.domains is not None:
            rows = batch.is_source if part == "source" else ~batch.is_source
            branches = {suffix: features[rows] for suffix, features in branches.items()}
            batch = batch.select(rows)
        batch = replace(batch, teacher_logits=_teacher_logits(batch, step))
        found = {}
        for name, loss in self.active_losses(step).items():
            if not loss.applies_to(part, step.memory):
                continue
            scale = loss.factor(part, self.scales.get(name, 1.0), self.source_scale)
            on_embedding = loss.needs_memory or loss.needs_roles
            on_embedding = on_embedding or (loss.needs_teacher and bool(branches))
            seen = {"": batch.features} if on_embedding else branches
            for suffix, features in seen.items():
                value = loss(replace(batch, features=features), step.memory)
                found[f"loss_{loss.log_name}{suffix}"] = value * (scale / len(seen))
            if loss.positives is not None:
                step.positives[part] = loss.positives
        return found

    def stock_pairwise(self, branches: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """fastreid's losses that need no classifier, for heads that have none; as `registered`."""
        names, share = self.loss_kwargs["loss_names"], 1 / len(branches)
        found: dict[str, Tensor] = {}
        for suffix, features in branches.items():
            values = stock_losses(self.loss_kwargs, names, features, targets)
            found |= {f"{key}{suffix}": share * value for key, value in values.items()}
        return found


@torch.no_grad()
def _teacher_logits(batch: Batch, step: StepContext) -> Tensor | None:
    """The teacher's logits over its memory, f32 [B, L]; None without a teacher or a memory."""
    memory = step.memory if step.teacher_memory is None else step.teacher_memory
    if memory is None or batch.teacher_features is None:
        return None
    return memory.logits(F.normalize(batch.teacher_features.float()), batch)
