"""The mean teacher inside stock training: labels, evaluation, checkpoint, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import same_end
from tiny_runs import build, config, digest, train, weights

pytestmark = pytest.mark.usefixtures("plugin")
TEACHER = ("CC.TEACHER.ENABLED", True, "CC.TEACHER.MOMENTUM", 0.5)


def test_resume_in_mid_epoch_with_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights, statistics and step come back, and the labels that depend on them."""
    same_end(tmp_path, monkeypatch, 5, *TEACHER, "SOLVER.MAX_EPOCH", 4)
    saved = [digest(weights(tmp_path / name / "teacher")) for name in ("whole", "parts")]
    assert saved[0] == saved[1] != digest(weights(tmp_path / "whole"))


@pytest.mark.parametrize("used", [True, False])
def test_labels_come_from_the_teacher_if_asked(
    used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.trainer import pseudo_label_hook as hooks

    seen: list[Any] = []
    original = hooks.extract_features

    def extract(cfg: Any, model: Any, images: Any) -> Any:
        seen.append(model)
        return original(cfg, model, images)

    monkeypatch.setattr(hooks, "extract_features", extract)
    trainer = train(config(tmp_path, *TEACHER, "CC.TEACHER.USE_FOR_LABELS", used))
    assert len(seen) == 2
    assert all((model is trainer.model) != used for model in seen)


@pytest.mark.parametrize("enabled", [True, False])
def test_evaluation_measures_the_teacher_with_and_without_labels(
    enabled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that never moves keeps the metrics of the start; the network does not."""
    from fastreid.engine import DefaultTrainer

    measured: list[Any] = []
    monkeypatch.setattr(
        DefaultTrainer, "test", classmethod(lambda cls, cfg, model: measured.append(model) or {})
    )
    stock = (
        ()
        if enabled
        else (
            "CC.ENABLED",
            False,
            "MODEL.META_ARCHITECTURE",
            "Baseline",
            "MODEL.HEADS.NAME",
            "EmbeddingHead",
            "MODEL.LOSSES.NAME",
            '("TripletLoss",)',
            "DATALOADER.SAMPLER_TRAIN",
            "TrainingSampler",
            "SOLVER.MAX_EPOCH",
            1,
        )
    )
    cfg = config(
        tmp_path,
        *TEACHER,
        "CC.TEACHER.MOMENTUM",
        1.0,
        "CC.TEACHER.RAMP",
        False,
        "TEST.EVAL_PERIOD",
        1,
        *stock,
    )
    trainer = build(cfg)
    start = digest(dict(trainer.model.named_parameters()))
    trainer.train()
    assert measured
    assert all(model is not trainer.model for model in measured)
    assert digest(dict(measured[-1].named_parameters())) == start
    assert digest(dict(trainer.model.named_parameters())) != start


def test_the_teachers_own_checkpoint_is_a_plain_one(tmp_path: Path) -> None:
    train(config(tmp_path, *TEACHER, "SOLVER.MAX_EPOCH", 1))
    whole = torch.load(tmp_path / "model_final.pth", weights_only=True)
    alone = torch.load(tmp_path / "teacher" / "model_final.pth", weights_only=True)
    assert alone.keys() == {"model"}
    assert alone["model"].keys() == whole["model"].keys()
    assert whole["cc_teacher"]["step"] == 2
    assert digest(alone["model"]) == digest(whole["cc_teacher"]["model"])
