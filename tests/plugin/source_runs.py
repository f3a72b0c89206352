"""Tiny runs with labelled sources, and what their batches held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import build, config

#: SpCL's memory over both sources; 16 classes, 48 target images, three epochs of two steps.
JOINT: tuple[object, ...] = (
    "CC.SOURCES.NAMES",
    '("SyntheticSource","SyntheticSource2")',
    "CC.SOURCES.MODE",
    "joint",
    "CC.SOURCES.IMS_PER_BATCH",
    8,
    "CC.SOURCES.NUM_INSTANCE",
    2,
    "CC.SOURCES.LOSSES",
    "()",
    "CC.SOURCES.BN",
    "rectified",
    "CC.MEMORY.NAME",
    "hybrid",
    "CC.REFINE.NAMES",
    '("self_paced",)',
    "SOLVER.MAX_EPOCH",
    3,
)

#: One source, one epoch on its labels, then the target alone.
PRETRAIN: tuple[object, ...] = (
    "CC.SOURCES.NAMES",
    '("SyntheticSource",)',
    "CC.SOURCES.MODE",
    "pretrain",
    "CC.SOURCES.PRETRAIN_EPOCHS",
    1,
    "CC.SOURCES.IMS_PER_BATCH",
    8,
    "CC.SOURCES.NUM_INSTANCE",
    2,
    "SOLVER.MAX_EPOCH",
    3,
)


def watched(
    output: Path, monkeypatch: pytest.MonkeyPatch, *options: object
) -> tuple[Any, list[dict[str, Any]], list[dict[str, float]]]:
    """(the trainer, every step's batch without its pixels, every step's losses) of a run.

    Of two networks each makes a step. A batch holds what the teacher made of it too.
    """
    from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast

    steps, original, batches, found = ClusterContrast.train_step, ClusterContrast.losses, [], []

    def train_step(self: Any, inputs: Any, step: Any) -> Any:
        batches.append({k: v for k, v in inputs.items() if k != "images"})
        return steps(self, inputs, step)

    def losses(self: Any, outputs: Any, batch: Any, step: Any) -> Any:
        values = original(self, outputs, batch, step)
        batches[-1]["teacher_features"] = batch.teacher_features
        found.append({name: float(value.detach()) for name, value in values.items()})
        return values

    with monkeypatch.context() as patch:
        patch.setattr(ClusterContrast, "train_step", train_step)
        patch.setattr(ClusterContrast, "losses", losses)
        trainer = build(config(output, *options))
        trainer.train()
    return trainer, batches, found
