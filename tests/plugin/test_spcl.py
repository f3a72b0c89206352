"""SpCL in the trainer, step by step, against its formulas written out as loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import losses as oracle
from tiny_runs import config, train

SPCL = (
    "CC.MEMORY.NAME",
    "hybrid",
    "CC.REFINE.NAMES",
    "('self_paced',)",
    "CC.CLUSTER.DBSCAN.EPS",
    0.5,
    "MODEL.LOSSES.NAME",
    "('MemoryContrast',)",
    "MODEL.LOSSES.MemoryContrast.PROBABILITY_FLOOR",
    1e-6,
    "CC.EXTRACT.BN",
    "camera",
    "SOLVER.MAX_EPOCH",
    3,
)


@pytest.mark.usefixtures("plugin")
def test_labels_losses_and_rows_are_those_of_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from fastreid_cc.labeling.pseudo_labeler import PseudoLabeler
    from fastreid_cc.losses.memory_contrast import MemoryContrast
    from fastreid_cc.memories.hybrid import HybridMemory

    clustered: list[torch.Tensor] = []  # features, labelling by labelling
    labels: list[torch.Tensor] = []
    rows: list[torch.Tensor] = []  # of the memory, after each step
    met: set[bool] = set()  # images in no cluster, images in one
    label, compute, update = PseudoLabeler.__call__, MemoryContrast.compute, HybridMemory.update

    def watched_labels(self: Any, features: Any, *args: Any, **more: Any) -> Any:
        found = label(self, features, *args, **more)
        clustered.append(features.clone())
        labels.append(torch.from_numpy(found.labels))
        return found

    def watched_loss(self: Any, batch: Any, memory: Any) -> torch.Tensor:
        loss: torch.Tensor = compute(self, batch, memory)
        classes = labels[-1].clone()
        alone = torch.nonzero(classes < 0)[:, 0]
        classes[alone] = int(classes.max()) + 1 + torch.arange(len(alone))
        assert torch.equal(batch.targets, classes[batch.indices])
        wanted = oracle.hybrid_contrast(
            batch.features, memory.rows, classes, batch.targets, 0.05, 1e-6
        )
        torch.testing.assert_close(loss, wanted)
        if not rows:
            assert torch.equal(memory.rows, clustered[0])
        met.update((labels[-1][batch.indices] < 0).tolist())
        return loss

    def watched_update(self: Any, batch: Any) -> None:
        before = self.rows.clone()
        update(self, batch)
        features = oracle.unit(batch.features.detach())
        wanted = oracle.sequential_update(before, batch.indices, features, 0.2)
        torch.testing.assert_close(self.rows, wanted)
        rows.append(self.rows.clone())

    monkeypatch.setattr(PseudoLabeler, "__call__", watched_labels)
    monkeypatch.setattr(MemoryContrast, "compute", watched_loss)
    monkeypatch.setattr(HybridMemory, "update", watched_update)
    train(config(tmp_path, *SPCL))
    assert len(clustered) == 3 and len(rows) == 6
    assert torch.equal(clustered[1], rows[1]) and torch.equal(clustered[2], rows[3])
    assert met == {True, False}
    said = [r.message for r in caplog.records if "the first only sees" in r.message]
    assert len(said) == 1 and "CC.EXTRACT.BN=camera" in said[0] and "HYBRID.REINIT" in said[0]


@pytest.mark.usefixtures("plugin")
def test_what_every_labelling_sees_needs_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from fastreid_cc.plugin.trainer.run_log import warn_of_kept_rows
    from fastreid_cc.registry import MEMORIES

    cfg = config(tmp_path, *SPCL)
    for memory in (
        MEMORIES.get("hybrid")(reinit=True),
        MEMORIES.get("cluster")(),
        MEMORIES.get("instance")(init="zeros"),
    ):
        warn_of_kept_rows(cfg, memory)
    warn_of_kept_rows(config(tmp_path, *SPCL, "CC.EXTRACT.BN", "running"), MEMORIES.get("hybrid")())
    assert not caplog.records
