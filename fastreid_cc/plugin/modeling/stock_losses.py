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

#: Name -> (logged as, node of the settings, function, its settings).
PAIRWISE: dict[str, tuple[str, str, Any, tuple[str, ...]]] = {
    "TripletLoss": ("triplet", "tri", triplet_loss, ("margin", "norm_feat", "hard_mining")),
    "CircleLoss": ("circle", "circle", pairwise_circleloss, ("margin", "gamma")),
    "Cosface": ("cosface", "cosface", pairwise_cosface, ("margin", "gamma")),
}


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
    for name, (key, node, function, arguments) in PAIRWISE.items():
        if name in names:
            own = settings[node]
            value = function(features, targets, *(own[argument] for argument in arguments))
            found[f"loss_{key}"] = own["scale"] * value
    return found
