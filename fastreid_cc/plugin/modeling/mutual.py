"""Two networks that train side by side, each taught by the other's mean teacher (MMT)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import configurable
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from torch import Tensor

from .meta_arch import ClusterContrast


@META_ARCH_REGISTRY.register()
class MutualContrast(ClusterContrast):
    """A ClusterContrast and its `peer`, a second one with weights of its own.

    In training each sees its own augmentation of the batch (CC.TEACHER.OWN_VIEW) and contrasts with
    its own memory; the peer's losses are "..._peer". With CC.TEACHER, soft losses of one learn from
    the teacher of the other. In evaluation features are both networks', unit length each, side by
    side [B, 2 D]: their cosine is the mean of the two networks' cosines.

    The first network's names are ClusterContrast's, so the checkpoint loads as it in stock fastreid
    and gives the first network alone. A checkpoint without a peer starts both.

    Source: Ge et al., Mutual Mean-Teaching, ICLR 2020. Differs: one optimizer for both networks; a
    memory instead of a classifier; the teachers' running statistics are averages.
    """

    num_networks = 2

    @configurable
    def __init__(self, *, peer, **arguments):
        super().__init__(**arguments)
        self.peer = peer

    @classmethod
    def from_config(cls, cfg):
        """ClusterContrast's arguments, and a second ClusterContrast."""
        return {**super().from_config(cfg), "peer": ClusterContrast(cfg)}

    def forward(self, batched_inputs):
        """Features [B, 2 D] in evaluation, the losses of both networks in training."""
        if self.training:
            return super().forward(batched_inputs)
        both = self.features_of(batched_inputs)
        return torch.cat([F.normalize(features) for features in both], dim=1)

    def train_step(self, inputs, step):
        """As ClusterContrast's, of both networks; the batch holds their features side by side."""
        first, second = self.inputs_of_both(inputs, step)
        own, others = step.split()
        found, batch = super().train_step(first, own)
        peer_found, peer_batch = self.peer.train_step(second, others)
        found |= {f"{key}_peer": value for key, value in peer_found.items()}
        if batch is not None:
            both = [batch.features, peer_batch.features]
            batch = replace(batch, features=torch.cat(both, dim=1))
        return found, batch

    def features_of(self, inputs) -> list[Tensor]:
        """[first network's features, the peer's], [B, D] each; in evaluation mode."""
        inputs = {"images": inputs} if isinstance(inputs, Tensor) else inputs
        images = inputs["images"]
        views = images.clone(), inputs.get("images_2", images).clone()  # normalised in place
        first = super().forward({**inputs, "images": views[0]})
        return [first, self.peer({**inputs, "images": views[1]})]

    @torch.no_grad()
    def inputs_of_both(self, inputs, step) -> list[dict[str, Any]]:
        """The batch as each network sees it, with the features of the other's teacher."""
        images = inputs["images"]
        views = images.clone(), inputs.get("images_2", images).clone()
        found = [{**inputs, "images": view} for view in views]
        if self.is_taught(step):
            taught = step.teacher.features_of({**inputs, "for_memory": True})
            for own, features in zip(found, taught[::-1], strict=True):
                own["teacher_features"] = features
        return found

    def load_state_dict(self, state_dict, *args: Any, **kwargs: Any):
        """Loads weights; those of one network go to both."""
        if not any(name.startswith("peer.") for name in state_dict):
            state_dict = {**state_dict, **{f"peer.{k}": v for k, v in state_dict.items()}}
        return super().load_state_dict(state_dict, *args, **kwargs)
