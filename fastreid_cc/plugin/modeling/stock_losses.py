"""fastreid's own losses as functions of features, targets and, for cross-entropy, logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastreid.modeling.losses import (
    cross_entropy_loss,
    pairwise_circleloss,
    pairwise_cosface,
    triplet_loss,
)
from torch import Tensor


def stock_losses(
    settings: dict[str, Any],
    names: Sequence[str],
    features: Tensor,
    targets: Tensor,
    logits: Tensor | None = None,
) -> dict[str, Tensor]:
    """The chosen losses, each times its scale, under fastreid's own keys ("loss_triplet", ...).

    Args:
        settings: `loss_kwargs` of fastreid's Baseline.
        names: names of MODEL.LOSSES.NAME; cross-entropy is left out without logits.
        features: [B, D]. targets: i64 [B]. logits: [B, S].
    """
    found: dict[str, Tensor] = {}
    if "CrossEntropyLoss" in names and logits is not None:
        own = settings["ce"]
        found["loss_cls"] = own["scale"] * cross_entropy_loss(
            logits, targets, own["eps"], own["alpha"]
        )
    if "TripletLoss" in names:
        own = settings["tri"]
        found["loss_triplet"] = own["scale"] * triplet_loss(
            features, targets, own["margin"], own["norm_feat"], own["hard_mining"]
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
