"""The head of label-free training: fastreid's EmbeddingHead, with a classifier for sources only."""

from __future__ import annotations

import torch
from fastreid.config import configurable
from fastreid.layers import any_softmax, get_norm, pooling
from fastreid.layers.weight_init import weights_init_kaiming
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import source_names


@REID_HEADS_REGISTRY.register()
class ClusterContrastHead(nn.Module):
    """Pooling, optional reduction and BN neck, named as in EmbeddingHead.

    For the target a memory takes the place of the classifier. Labelled sources have one, `weight`
    [S, D], if CC.SOURCES.LOSSES holds CrossEntropyLoss; S is MODEL.HEADS.NUM_CLASSES. The names are
    EmbeddingHead's, so a checkpoint loads in stock fastreid.
    """

    @configurable
    def __init__(
        self,
        *,
        feat_dim: int,
        embedding_dim: int,
        neck_feat: str,
        pool_type: str,
        with_bnneck: bool,
        norm_type: str,
        num_classes: int = 0,
        cls_type: str = "Linear",
        scale: float = 1.0,
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        if pool_type not in pooling.__all__:
            raise ValueError(
                f"MODEL.HEADS.POOL_LAYER={pool_type!r} must be one of {', '.join(pooling.__all__)}."
            )
        if neck_feat not in ("before", "after"):
            raise ValueError(f"MODEL.HEADS.NECK_FEAT={neck_feat!r} must be before or after.")
        self.pool_layer = getattr(pooling, pool_type)()
        self.neck_feat = neck_feat
        neck: list[nn.Module] = []
        if embedding_dim > 0:
            neck.append(nn.Conv2d(feat_dim, embedding_dim, 1, 1, bias=False))
            feat_dim = embedding_dim
        if with_bnneck:
            neck.append(get_norm(norm_type, feat_dim, bias_freeze=True))
        self.bottleneck = nn.Sequential(*neck)
        self.feature_size = feat_dim
        self.bottleneck.apply(weights_init_kaiming)
        self.num_classes = num_classes
        if num_classes:
            self.weight = nn.Parameter(torch.empty(num_classes, feat_dim))
            self.cls_layer = getattr(any_softmax, cls_type)(num_classes, scale, margin)
            nn.init.normal_(self.weight, std=0.01)

    @classmethod
    def from_config(cls, cfg):
        """Constructor arguments from MODEL.BACKBONE, MODEL.HEADS and CC.SOURCES."""
        sources = cfg.CC.SOURCES
        classifies = bool(source_names(cfg)) and "CrossEntropyLoss" in sources.LOSSES
        return {
            "feat_dim": cfg.MODEL.BACKBONE.FEAT_DIM,
            "embedding_dim": cfg.MODEL.HEADS.EMBEDDING_DIM,
            "neck_feat": cfg.MODEL.HEADS.NECK_FEAT,
            "pool_type": cfg.MODEL.HEADS.POOL_LAYER,
            "with_bnneck": cfg.MODEL.HEADS.WITH_BNNECK,
            "norm_type": cfg.MODEL.HEADS.NORM,
            "num_classes": cfg.MODEL.HEADS.NUM_CLASSES if classifies else 0,
            "cls_type": cfg.MODEL.HEADS.CLS_LAYER,
            "scale": cfg.MODEL.HEADS.SCALE,
            "margin": cfg.MODEL.HEADS.MARGIN,
        }

    def classify(self, embedding: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Logits of source images, [b, S], with the margin and scale of MODEL.HEADS.CLS_LAYER.

        Args:
            embedding: [b, D], the neck's output for images of sources.
            targets: i64 [b], their classes.
            weight: [S, D]; None = the head's own. All layers but Linear work on cosines with it.
        """
        weight = self.weight if weight is None else weight
        if type(self.cls_layer) is not any_softmax.Linear:
            embedding, weight = F.normalize(embedding), F.normalize(weight)
        logits = F.linear(embedding, weight)
        return self.cls_layer(logits.clone(), targets)  # it may work in place

    def class_logits(self, embedding: Tensor) -> Tensor:
        """Logits of any images over the classes of the sources, f32 [B, S], without a margin."""
        with torch.autocast(embedding.device.type, enabled=False):
            embedding, weight = embedding.float(), self.weight.float()
            if type(self.cls_layer) is not any_softmax.Linear:
                embedding, weight = F.normalize(embedding), F.normalize(weight)
            return F.linear(embedding, weight) * self.cls_layer.s

    def spare_parameters(self) -> list[nn.Parameter]:
        """Parameters that some batches of a training do not use: the classifier's."""
        return [self.weight] if self.num_classes else []

    def pooled(self, features: Tensor, domains: Tensor | None = None) -> Tensor:
        """What MODEL.HEADS.TEST_FEAT pooled tests, [B, D], of a feature map [B, C, H, W]."""
        return self.pool_layer(features)[..., 0, 0]

    def forward(
        self, features: Tensor, targets: Tensor | None = None, domains: Tensor | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Maps a feature map [B, C, H, W] to features [B, D]; targets and domains are not used.

        Returns:
            In evaluation the neck's output, as EmbeddingHead does. In training a dict: "features"
            for pairwise losses (NECK_FEAT before or after) and "embedding", the neck's output,
            which is what extraction sees and what a memory is compared with.
        """
        pooled = self.pool_layer(features)
        embedding = self.bottleneck(pooled)[..., 0, 0]
        if not self.training:
            return embedding
        before = self.neck_feat == "before"
        return {"features": pooled[..., 0, 0] if before else embedding, "embedding": embedding}
