"""The target's batch norm is fit to be measured and saved while sources are learnt alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from source_runs import JOINT
from tiny_runs import build, config, digest, train, weights

pytestmark = pytest.mark.usefixtures("plugin")

#: Four epochs of source labels, one with pseudo-labels; a teacher that is evaluated, no more.
STAGES: tuple[object, ...] = (
    *JOINT,
    "CC.SOURCES.LOSSES",
    '("CrossEntropyLoss",)',
    "CC.SOURCES.PRETRAIN_EPOCHS",
    4,
    "CC.ITERS_PER_EPOCH",
    1,
    "CC.TEACHER.ENABLED",
    True,
    "CC.TEACHER.MOMENTUM",
    0.5,
    "CC.TEACHER.USE_FOR_LABELS",
    False,
    "SOLVER.MAX_EPOCH",
    5,
    "SOLVER.CHECKPOINT_PERIOD",
    100,
)


def is_adapted(state: dict[str, torch.Tensor]) -> bool:
    """Whether scales of the target are the mean of the sources', and its statistics its own."""
    layers = [n.removesuffix("sources.0.weight") for n in state if n.endswith("sources.0.weight")]
    assert len(layers) > 10
    for name in layers:
        branches = torch.stack([state[f"{name}sources.{i}.weight"] for i in (0, 1)])
        if not torch.equal(state[f"{name}weight"], branches.mean(0)):
            return False
    at_start = [not state[f"{name}running_mean"].any() for name in layers]
    return not any(at_start)


def test_what_is_measured_or_saved_in_the_source_epochs_has_seen_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amid them and at their end, of network and teacher; later bytes stay as they were."""
    from fastreid.engine import DefaultTrainer

    seen: list[dict[str, torch.Tensor]] = []

    def test(cls: Any, cfg: Any, model: Any) -> dict[str, Any]:
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {}

    monkeypatch.setattr(DefaultTrainer, "test", classmethod(test))
    train(config(tmp_path / "plain", *STAGES))
    seen.clear()
    looked, periods = tmp_path / "looked", ("TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 3)
    train(config(looked, *STAGES, *periods, "SOLVER.MAX_EPOCH", 4))
    assert len(seen) == 2 and all(is_adapted(state) for state in seen)
    saved = [torch.load(looked / f"model_{name}.pth") for name in ("0002", "final")]
    for state in saved:
        assert is_adapted(state["model"]) and is_adapted(state["cc_teacher"]["model"])
    assert is_adapted(weights(looked / "teacher"))
    build(config(looked, *STAGES), resume=True).train()
    for name in ("", "teacher"):
        assert digest(weights(tmp_path / "plain" / name)) == digest(weights(looked / name))
