"""Baseline and MGN with registered losses, under their stock names if a config names such a loss.

`MODEL.META_ARCHITECTURE: Baseline` or `MGN` stays stock as long as `MODEL.LOSSES.NAME` holds stock
losses only. Any other name, or CC.LOSS_STAGES or MODEL.HEADS.TEST_FEAT, which stock fastreid would
ignore, makes it one of the classes here.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.heads import EmbeddingHead
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.modeling.meta_arch.mgn import MGN

from ...config import STOCK_LOSSES
from ...errors import BadConfig
from ...networks.camera_batch_norm import groups_of, split_by_camera
from .cluster_contrast_head import ClusterContrastHead
from .feature_maps import maps_of, wanted_maps
from .registered_losses import (
    WithLosses,
    batch_of,
    batch_to_keep,
    is_statistics_only,
    loss_arguments,
)
from .source_losses import WithSources, source_arguments

POOLING_HEADS = (ClusterContrastHead, EmbeddingHead)
HEADS = ("b1", "b2", "b21", "b22", "b3", "b31", "b32", "b33")  # the order MGN.losses gets them in
EMBEDDING = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")  # the order MGN joins them in
BRANCHES = {
    "_b1": ("b1",),
    "_b2": ("b2",),
    "_b3": ("b3",),
    "_b22": ("b21", "b22"),
    "_b33": ("b31", "b32", "b33"),
}


@META_ARCH_REGISTRY.register()
class ClusterContrast(WithSources, Baseline):
    """Baseline that also computes the registered losses, with true labels or pseudo-labels.

    Evaluation gives the features of MODEL.HEADS.TEST_FEAT. Who compares with a memory, extraction
    and a teacher's logits, asks for the neck's output by "for_memory": True in the batch.
    """

    @configurable
    def __init__(
        self,
        *,
        losses,
        warmup_losses,
        scales,
        samples_per_bn,
        by_camera,
        sources,
        test_feat,
        **baseline,
    ):
        super().__init__(**baseline)
        self.test_feat = test_feat
        if test_feat == "pooled" and not isinstance(self.heads, POOLING_HEADS):
            raise BadConfig(
                "MODEL.HEADS.TEST_FEAT=pooled knows the heads"
                f" {', '.join(head.__name__ for head in POOLING_HEADS)} and those derived from"
                f" them, found {type(self.heads).__name__}. Set it to neck."
            )
        self.add_losses(losses, warmup_losses, scales, samples_per_bn)
        self.add_sources(**sources)
        self.cameras = split_by_camera(self) if by_camera else None

    @classmethod
    def from_config(cls, cfg):
        """Baseline's arguments, the registered losses and their weights, and the sources'."""
        own = {"sources": source_arguments(cfg), "test_feat": cfg.MODEL.HEADS.TEST_FEAT}
        own["by_camera"] = cfg.CC.ENABLED and cfg.CC.TRAIN_BN == "camera"
        return {**super().from_config(cfg), **loss_arguments(cfg), **own}

    def forward(self, batched_inputs):
        """Features [B, D] in evaluation, a dict of scalar losses in training.

        "domains" in the batch chooses the batch norm of each image; without it the target's works.
        """
        if self.training:
            found, self.step.last_batch = self.train_step(batched_inputs, self.step)
            return found
        given = batched_inputs if isinstance(batched_inputs, dict) else {}
        domains = given.get("domains")
        with self.images_of(domains):
            features = self.backbone(self.preprocess_image(batched_inputs))
            if self.test_feat == "neck" or given.get("for_memory"):
                return self.heads(features, **self.for_head(domains))
            if isinstance(self.heads, ClusterContrastHead):
                return self.heads.pooled(features, domains)
            return self.heads.pool_layer(features)[..., 0, 0]

    def by_camera(self, inputs):
        """(the training batch, context of its batch norm): sorted by CC.TRAIN_BN camera."""
        if self.cameras is None:
            return inputs, nullcontext()
        order, sizes = groups_of(inputs["camids"].cpu())
        return {key: _reordered(value, order) for key, value in inputs.items()}, self.cameras.of(
            sizes
        )

    def train_step(self, inputs, step):
        """(losses, the batch that the memory moves by or None) of a training batch."""
        inputs, cameras = self.by_camera(inputs)
        if self.is_taught(step):
            inputs = {**inputs, "teacher_features": self.teacher_features(inputs, step)}
        domains, targets = inputs.get("domains"), inputs["targets"].to(self.device)
        is_precise_bn = is_statistics_only(targets)
        classes = targets.clamp_min(0) if is_precise_bn else targets
        wanted = wanted_maps(self.active_losses(step).values())
        with self.images_of(domains, complete=step.trains_target), cameras:
            with maps_of(self.backbone, wanted) as maps:
                features = self.backbone(self.preprocess_image(inputs))
            outputs = self.heads(features, classes, **self.for_head(domains))
        if is_precise_bn:
            return {"loss_none": outputs["features"].sum() * 0}, None
        batch = batch_of(outputs.get("embedding", outputs["features"]), targets, inputs, maps)
        return self.losses(outputs, batch, step), batch_to_keep(batch, step)

    def losses(self, outputs, batch, step):
        """Stock losses by fastreid's own code, registered ones by theirs, each times its SCALE.

        Args:
            outputs: of the head. batch: with what extraction sees, [B, D]. step: see `registered`.
        """
        branches = {"": outputs["features"]}
        with self.stock_losses_of(step):
            if batch.domains is not None:
                found = self.joint_losses(outputs["features"], batch, step)
            else:
                found = super().losses(outputs, batch.targets) if "cls_outputs" in outputs else {}
                found = found or self.stock_pairwise(branches, batch.targets)
                found = {**found, **self.registered(branches, batch, step)}
        if "fused" in outputs:
            found |= self.fused_losses(replace(batch, features=outputs["fused"]), step)
        return self.keep_in_graph(found, step)

    def features_of(self, inputs):
        """[features], [B, D], in evaluation mode; leaves the pixels alone."""
        images = inputs["images"].clone()  # fastreid normalises in place
        return [self({**inputs, "images": images})]

    @torch.no_grad()
    def teacher_features(self, inputs, step):
        """The teacher's features of the batch, of its own view if the batch has one, [B, D]."""
        seen = {"images": inputs.get("images_2", inputs["images"]), "for_memory": True}
        seen |= {"domains": inputs["domains"]} if "domains" in inputs else {}
        return step.teacher.features_of(seen)[0]


@META_ARCH_REGISTRY.register()
class ClusterContrastMGN(WithLosses, MGN):
    """MGN that also computes the registered losses.

    Those without a memory see five features, weight 1/5 each, as MGN's triplet loss does: the
    global ones of the branches, and the joined parts of the second and of the third. Those with a
    memory see the embedding, all eight heads joined as in evaluation.
    """

    @configurable
    def __init__(self, *, losses, warmup_losses, scales, samples_per_bn, **mgn):
        super().__init__(**mgn)
        self.add_losses(losses, warmup_losses, scales, samples_per_bn)

    @classmethod
    def from_config(cls, cfg):
        """MGN's arguments, the registered losses and their weights."""
        if cfg.MODEL.HEADS.TEST_FEAT != "neck":
            raise BadConfig(f"MODEL.HEADS.TEST_FEAT={cfg.MODEL.HEADS.TEST_FEAT}: MGN knows neck.")
        return {**super().from_config(cfg), **loss_arguments(cfg)}

    def forward(self, batched_inputs):
        """Features [B, D] in evaluation, a dict of scalar losses in training."""
        if not self.training:
            return super().forward(batched_inputs)
        targets = batched_inputs["targets"].to(self.device)
        # MGN sets targets of a negative sum to 0 in place
        outputs, classes = super().forward({**batched_inputs, "targets": targets.clone()})
        if is_statistics_only(targets):
            return {"loss_none": outputs[0]["features"].sum() * 0}
        by_head = dict(zip(HEADS, outputs, strict=True))
        heads = [by_head[name] for name in EMBEDDING]
        embedding = torch.cat([head.get("embedding", head["features"]) for head in heads], dim=1)
        batch = batch_of(embedding, targets, batched_inputs)
        self.step.last_batch = batch_to_keep(batch, self.step)
        return self.all_losses(by_head, classes, batch)

    def losses(self, *outputs_and_classes):
        """(outputs of the heads, classes): MGN's forward ends here, and ours goes on with them."""
        *outputs, classes = outputs_and_classes
        return outputs, classes

    def all_losses(self, by_head, classes, batch):
        """Stock losses by fastreid's own code, registered ones by theirs, each times its SCALE.

        Args:
            by_head: outputs of each of `HEADS`. classes: i64 [B], for the stock losses.
            batch: with all heads joined, [B, D].
        """
        branches = {
            suffix: torch.cat([by_head[name]["features"] for name in names], dim=1)
            for suffix, names in BRANCHES.items()
        }
        with self.stock_losses_of(self.step):
            if "cls_outputs" in by_head["b1"]:
                found = super().losses(*by_head.values(), classes)
            else:
                found = self.stock_pairwise(branches, batch.targets)
        found |= self.registered(branches, batch, self.step)
        if self.step.loss_stage is not None:  # classifiers may have no part in it, as DDP asks
            key = next(iter(found))
            heads = [module for module in self.modules() if isinstance(module, EmbeddingHead)]
            found[key] = found[key] + sum(head.weight.sum() * 0 for head in heads)
        return found


def _reordered(value: Any, order: torch.Tensor) -> Any:
    if isinstance(value, torch.Tensor):
        return value[order.to(value.device)]
    return [value[row] for row in order.tolist()] if isinstance(value, list) else value


def _choose(stock: type, ours: type) -> Any:
    @functools.wraps(stock, updated=())
    def build(*args: Any, **kwargs: Any) -> Any:
        cfg = args[0] if args else kwargs.get("cfg")
        names = cfg.MODEL.LOSSES.NAME if cfg is not None else ()
        is_stock = set(names) <= set(STOCK_LOSSES)
        is_stock &= cfg is None or (cfg.MODEL.HEADS.TEST_FEAT == "neck" and not cfg.CC.LOSS_STAGES)
        return (stock if is_stock else ours)(*args, **kwargs)

    return build


def register() -> None:
    """Lets the registry's Baseline and MGN choose by MODEL.LOSSES.NAME; once."""
    for stock, ours in ((Baseline, ClusterContrast), (MGN, ClusterContrastMGN)):
        if META_ARCH_REGISTRY.get(stock.__name__) is stock:
            META_ARCH_REGISTRY._obj_map[stock.__name__] = _choose(stock, ours)


register()
