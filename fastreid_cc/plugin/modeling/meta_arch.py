"""Baseline and MGN with registered losses, under their stock names if a config names such a loss.

`MODEL.META_ARCHITECTURE: Baseline` or `MGN` stays stock as long as `MODEL.LOSSES.NAME` holds stock
losses only. Any other name, which stock fastreid would ignore, makes it one of the classes here.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from fastreid.config import configurable
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.modeling.meta_arch.mgn import MGN

from ...config.keys import STOCK_LOSSES
from .registered_losses import WithLosses, is_statistics_only, loss_arguments
from .source_losses import WithSources, source_arguments

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
    """Baseline that also computes the registered losses, with true labels or pseudo-labels."""

    @configurable
    def __init__(self, *, losses, scales, samples_per_bn, sources, **baseline):
        super().__init__(**baseline)
        self.add_losses(losses, scales, samples_per_bn)
        self.add_sources(**sources)

    @classmethod
    def from_config(cls, cfg):
        """Baseline's arguments, the registered losses and their weights, and the sources'."""
        sources = {"sources": source_arguments(cfg)}
        return {**super().from_config(cfg), **loss_arguments(cfg), **sources}

    def forward(self, batched_inputs):
        """Features [B, D] in evaluation, a dict of scalar losses in training.

        "domains" in the batch chooses the batch norm of each image; without it the target's works.
        """
        inputs = batched_inputs if isinstance(batched_inputs, dict) else {}
        domains = inputs.get("domains")
        if self.training and "teacher_features" not in inputs and self.teaching_needed():
            inputs = {**inputs, "teacher_features": self.taught(inputs)}
        with self.images_of(domains):
            features = self.backbone(self.preprocess_image(batched_inputs))
            if not self.training:
                return self.heads(features, **self.for_head(domains))
            targets = inputs["targets"].to(self.device)
            is_precise_bn = is_statistics_only(targets)
            classes = targets.clamp_min(0) if is_precise_bn else targets
            outputs = self.heads(features, classes, **self.for_head(domains))
        if is_precise_bn:
            return {"loss_none": outputs["features"].sum() * 0}
        return self.losses(outputs, targets, inputs)

    def losses(self, outputs, gt_labels, batched_inputs=None):
        """Stock losses by fastreid's own code, registered ones by theirs, each times its SCALE."""
        embedding, inputs = outputs.get("embedding", outputs["features"]), batched_inputs or {}
        if "domains" in inputs:
            found = self.joint_losses(outputs["features"], embedding, gt_labels, inputs)
        else:
            branches = {"": outputs["features"]}
            found = super().losses(outputs, gt_labels) if "cls_outputs" in outputs else {}
            found = found or self.stock_pairwise(branches, gt_labels)
            found = {**found, **self.registered(branches, embedding, gt_labels, inputs)}
        if "fused" in outputs:
            found |= self.fused_losses(outputs["fused"], gt_labels, inputs)
        return self.keep_in_graph(found)

    def features_of(self, batched_inputs):
        """[features], [B, D], in evaluation mode; leaves the pixels alone."""
        images = batched_inputs["images"].clone()  # fastreid normalises in place
        return [self({**batched_inputs, "images": images})]

    @torch.no_grad()
    def taught(self, inputs):
        """The teacher's features of the batch, of its own view if the batch has one, [B, D]."""
        seen = {"images": inputs.get("images_2", inputs["images"])}
        seen |= {"domains": inputs["domains"]} if "domains" in inputs else {}
        return self._teacher[0].features_of(seen)[0]


@META_ARCH_REGISTRY.register()
class ClusterContrastMGN(WithLosses, MGN):
    """MGN that also computes the registered losses.

    Those without a memory see five features, weight 1/5 each, as MGN's triplet loss does: the
    global ones of the branches, and the joined parts of the second and of the third. Those with a
    memory see the embedding, all eight heads joined as in evaluation.
    """

    _inputs: Any = None  # the batch between forward and losses

    @configurable
    def __init__(self, *, losses, scales, samples_per_bn, **mgn):
        super().__init__(**mgn)
        self.add_losses(losses, scales, samples_per_bn)

    @classmethod
    def from_config(cls, cfg):
        """MGN's arguments, the registered losses and their weights."""
        return {**super().from_config(cfg), **loss_arguments(cfg)}

    def forward(self, batched_inputs):
        """Features [B, D] in evaluation, a dict of scalar losses in training."""
        if not self.training:
            return super().forward(batched_inputs)
        targets = batched_inputs["targets"].to(self.device)
        self._inputs = {**batched_inputs, "targets": targets}
        # MGN sets targets of a negative sum to 0 in place
        return super().forward({**self._inputs, "targets": targets.clone()})

    def losses(self, *outputs_and_labels):
        """Stock losses by fastreid's own code, registered ones by theirs, each times its SCALE."""
        *outputs, labels = outputs_and_labels
        inputs, self._inputs = self._inputs, None
        by_head = dict(zip(HEADS, outputs, strict=True))
        if is_statistics_only(inputs["targets"]):
            return {"loss_none": by_head["b1"]["features"].sum() * 0}
        branches = {
            suffix: torch.cat([by_head[name]["features"] for name in names], dim=1)
            for suffix, names in BRANCHES.items()
        }
        if "cls_outputs" in by_head["b1"]:
            found = super().losses(*outputs, labels)
        else:
            found = self.stock_pairwise(branches, inputs["targets"])
        heads = [by_head[name] for name in EMBEDDING]
        embedding = torch.cat([head.get("embedding", head["features"]) for head in heads], dim=1)
        return {**found, **self.registered(branches, embedding, inputs["targets"], inputs)}


def _choose(stock: type, ours: type) -> Any:
    @functools.wraps(stock, updated=())
    def build(*args: Any, **kwargs: Any) -> Any:
        cfg = args[0] if args else kwargs.get("cfg")
        names = cfg.MODEL.LOSSES.NAME if cfg is not None else ()
        return (stock if set(names) <= set(STOCK_LOSSES) else ours)(*args, **kwargs)

    return build


def register() -> None:
    """Lets the registry's Baseline and MGN choose by MODEL.LOSSES.NAME; once."""
    for stock, ours in ((Baseline, ClusterContrast), (MGN, ClusterContrastMGN)):
        if META_ARCH_REGISTRY.get(stock.__name__) is stock:
            META_ARCH_REGISTRY._obj_map[stock.__name__] = _choose(stock, ours)


register()
