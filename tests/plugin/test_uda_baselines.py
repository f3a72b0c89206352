"""Baselines of adaptation, their demo configs at tiny size: each trains, and its parts act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import PAIRS, ROOT, train

pytestmark = pytest.mark.usefixtures("plugin")
TINY = dict(zip(PAIRS[::2], PAIRS[1::2], strict=True)) | {
    "SOLVER.MAX_EPOCH": 3,
    "CC.SOURCES.PRETRAIN_EPOCHS": 1,
    "CC.SOURCES.IMS_PER_BATCH": 8,
    "CC.SOURCES.NUM_INSTANCE": 2,
    "CC.EVAL_BEFORE": False,
}


def tiny(name: str, output: Path, **changes: object) -> Any:
    """The trainer of configs/demo/uda/<name>.yml after an epoch on the source and two of labels."""
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs" / "demo" / "uda" / f"{name}.yml"))
    pairs = TINY | {"OUTPUT_DIR": str(output), **changes}
    cfg.merge_from_list([str(part) for pair in pairs.items() for part in pair])
    cfg.freeze()
    return train(cfg)


def last(trainer: Any) -> dict[str, float]:
    """The last value of each loss."""
    names = [name for name in trainer.storage.histories() if name.startswith("loss_")]
    return {name: trainer.storage.history(name).latest() for name in names}


def test_the_strong_baselines_classifier_learns_in_place(tmp_path: Path) -> None:
    trainer = tiny("strong-baseline", tmp_path)
    memory, model = trainer._hooks[0].memory, trainer.model
    assert {"loss_memory_contrast", "loss_batch_hard_triplet"} <= set(last(trainer))
    assert memory.steps == 2 and memory.first_moment.abs().sum() > 0  # of the last labelling
    lengths = memory.rows.norm(dim=1)
    assert torch.isfinite(lengths).all() and (lengths - 1).abs().max() > 1e-5
    assert model.registered_losses["BatchHardTriplet"].margin == 0
    assert model.heads.bottleneck[-1].weight.grad is not None
