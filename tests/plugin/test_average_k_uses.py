"""The four uses of average-K sets on pseudo-labels, each switched on by config keys alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import config, digest, plugin_at, train, weights

pytestmark = pytest.mark.usefixtures("plugin")

AVERAGE_K = (
    "MODEL.LOSSES.NAME",
    "('AverageK',)",
    "MODEL.LOSSES.AverageK.START_EPOCH",
    0,
    "MODEL.LOSSES.AverageK.SET_SIZE",
    2.0,
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> str:
    """Final weights of a run with plain cross-entropy."""
    output = tmp_path_factory.mktemp("plain")
    with plugin_at(data_root):
        train(config(output))
    return digest(weights(output))


def test_before_its_start_average_k_trains_the_same_bytes_as_cross_entropy(
    plain: str, tmp_path: Path
) -> None:
    train(config(tmp_path, *AVERAGE_K, "MODEL.LOSSES.AverageK.START_EPOCH", 9))
    assert digest(weights(tmp_path)) == plain


@pytest.mark.parametrize("use", ["soft_positives", "mask_negatives", "two_head"])
def test_a_use_of_the_sets_reaches_the_weights(use: str, plain: str, tmp_path: Path) -> None:
    train(config(tmp_path, *AVERAGE_K, "MODEL.LOSSES.AverageK.USE", use))
    assert digest(weights(tmp_path)) != plain


def test_rescued_outliers_are_in_every_batch_and_pull_on_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.losses.average_k import AverageK

    pulls, counts = [], []
    original = AverageK.compute

    def spy(self: Any, batch: Any, memory: Any) -> torch.Tensor:
        loss = original(self, batch, memory)
        (pull,) = torch.autograd.grad(loss, batch.features, retain_graph=True)
        pulls.append(pull[batch.targets < 0].norm(dim=1))
        counts.append((len(batch.targets), int((batch.targets < 0).sum())))
        return loss

    monkeypatch.setattr(AverageK, "compute", spy)
    trainer = train(
        config(
            tmp_path,
            *AVERAGE_K,
            "MODEL.LOSSES.AverageK.RESCUE",
            True,
            "CC.SAMPLER.OUTLIERS_PER_BATCH",
            4,
            "SOLVER.IMS_PER_BATCH",
            12,
            "CC.CLUSTER.DBSCAN.EPS",
            0.45,
            "CC.COLLAPSE.EPS_BOUND",
            0.0,
        )
    )
    assert counts == [(12, 4)] * 4
    assert all((pull > 0).all() for pull in pulls)
    assert trainer._hooks[0].labels.num_outliers > 0


MERGE = (
    "CC.REFINE.MERGE_PROPOSALS.START_EPOCH",
    0,
    "CC.REFINE.MERGE_PROPOSALS.SHARE",
    0.3,
    "CC.REFINE.MERGE_PROPOSALS.SET_SIZE",
    1.5,
    "SOLVER.BASE_LR",
    1e-7,
)


def test_clusters_that_share_sets_are_merged_at_the_next_labelling(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the refiner the second labelling finds the first's clusters: the rate is tiny."""
    found = []
    for names in ("()", "('merge_proposals',)"):
        trainer = train(config(tmp_path / names, "CC.REFINE.NAMES", names, *MERGE))
        found.append(trainer._hooks[0].labels.labels)
    assert found[1].max() < found[0].max()
    pairs = np.unique(np.stack(found), axis=1).T
    assert len(pairs) == len(np.unique(found[0]))  # no cluster was split
    assert any("merges proposed" in r.getMessage() for r in caplog.records)


def test_merge_counts_travel_in_the_checkpoint(tmp_path: Path) -> None:
    keys = (*MERGE, "CC.REFINE.NAMES", "('merge_proposals',)")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config(whole, *keys))
    parts.mkdir()
    shutil.copy(whole / "model_0000.pth", parts)
    (parts / "last_checkpoint").write_text("model_0000.pth")
    resumed = train(config(parts, *keys), resume=True)
    assert resumed._hooks[0].labeler.refiners[0].previous is not None
    assert digest(weights(parts)) == digest(weights(whole))
