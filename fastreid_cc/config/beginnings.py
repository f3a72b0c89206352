"""Which keys play a part before the first labels: runs that differ in others share a beginning."""

from __future__ import annotations

from typing import Any

from ..registry import LOSSES

#: Nodes and keys of what comes after the warm-up, or after the epochs of source labels.
OF_LABELS = (
    "MODEL.LOSSES.NAME",
    "DATALOADER.NUM_INSTANCE",
    "CC.MEMORY.",
    "CC.REFINE.",
    "CC.CLUSTER.",
    "CC.DISTANCE.",
    "CC.NEIGHBORS.",
    "CC.LABELS.",
    "CC.COLLAPSE.",
)


def epochs_before_labels(cfg: Any) -> int:
    """Epochs of warm-up or of source labels; 0 in a supervised training."""
    before = max(cfg.CC.WARMUP.EPOCHS, cfg.CC.SOURCES.PRETRAIN_EPOCHS)
    return before if cfg.CC.ENABLED else 0


def shapes_beginning(cfg: Any, key: str) -> bool:
    """Whether a key may change what is trained before the first labels.

    Keys of a loss do if it works in the warm-up, where MemoryContrast has none.
    """
    for name in LOSSES.names():
        if key.startswith(f"MODEL.LOSSES.{name}."):
            is_warm = cfg.CC.WARMUP.EPOCHS > 0 and name in cfg.CC.WARMUP.LOSSES
            return is_warm and name != "MemoryContrast"
    return not key.startswith(OF_LABELS)
