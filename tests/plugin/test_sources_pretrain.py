"""First the sources' labels, then the target without labels, in one run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from source_runs import PRETRAIN, watched
from tiny_runs import build, config, metrics, weights

pytestmark = pytest.mark.usefixtures("plugin")


def test_one_run_learns_from_the_source_and_then_from_the_target_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, batches, losses = watched(tmp_path, monkeypatch, *PRETRAIN, "CC.EVAL_BEFORE", True)
    assert [len(batch["targets"]) for batch in batches] == [8] * 6
    for batch in batches[:2]:
        assert batch["domains"].tolist() == [1] * 8
        assert all("studio" in path for path in batch["img_paths"])
    for batch in batches[2:]:
        assert "domains" not in batch
        assert not any("studio" in path for path in batch["img_paths"])
    assert set(losses[1]) == {"loss_cls_source", "loss_triplet_source"}
    assert set(losses[2]) == {"loss_memory_contrast"}
    assert trainer._hooks[0].memory.num_sources == 0
    shown = {name for name in trainer.storage.histories() if "loss" in name}
    assert shown == {"total_loss"}, "fastreid prints every loss it holds, of a single one the total"
    assert len(trainer.storage.history("total_loss").values()) == 4
    written = {name for line in metrics(tmp_path) for name in line}
    assert {"start/mAP", "transfer/mAP"} <= written
    assert weights(tmp_path)["heads.weight"].shape == (8, 128)


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [("MultiStepLR", ()), ("MultiStepLR", (9,)), ("CosineAnnealingLR", ())],
)
def test_each_stage_has_a_schedule_of_its_own(
    schedule: str, steps: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs on labels, four without: rates start anew, as in two runs."""
    options = (
        *PRETRAIN,
        "CC.SOURCES.PRETRAIN_EPOCHS",
        2,
        "SOLVER.MAX_EPOCH",
        6,
        "SOLVER.SCHED",
        schedule,
        "SOLVER.STEPS",
        "[1, 3]",
        "CC.SOURCES.STEPS",
        steps,
        "SOLVER.BASE_LR",
        0.01,
        "SOLVER.ETA_MIN_LR",
        0.0,
    )
    trainer = build(config(tmp_path, *options))
    rates, stock = [], trainer._trainer.run_step

    def run_step() -> None:
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        stock()

    monkeypatch.setattr(trainer._trainer, "run_step", run_step)
    trainer.train()
    expected = {
        "MultiStepLR": [1, 1 if steps else 0.1, 1, 0.1, 0.1, 0.01],
        "CosineAnnealingLR": [1, 0.5, 1, 0.853553, 0.5, 0.146447],
    }[schedule]
    found = torch.tensor(rates[::2]) / 0.01
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)
