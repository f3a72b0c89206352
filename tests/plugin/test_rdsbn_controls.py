"""RDSBN and its controls, one batch norm and branches without gates, differ in nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from source_runs import JOINT, watched

from fastreid_cc.config import walk

pytestmark = pytest.mark.usefixtures("plugin")
NAMES = ("memory_contrast", "triplet")
DEMO = Path(__file__).parents[2] / "configs" / "demo" / "uda"


def test_the_configs_differ_in_the_batch_norm_alone() -> None:
    from fastreid.config import get_cfg

    found = []
    for name in ("rdsbn", "rdsbn-no-gates", "cc-two-sources"):
        cfg = get_cfg()
        cfg.merge_from_file(str(DEMO / f"{name}.yml"))
        found.append(dict(walk(cfg)))
    others = {key for key in found[0] if any(keys[key] != found[0][key] for keys in found)}
    assert others == {"CC.SOURCES.BN", "OUTPUT_DIR"}
    assert [keys["CC.SOURCES.BN"] for keys in found] == ["rectified", "domain", "shared"]


def test_they_start_from_the_same_weights_and_see_the_same_images_in_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the target as many: which ones, its clusters say. Losses as in Base-UDA-RDSBN.yml."""
    from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast

    starts: list[dict[str, torch.Tensor]] = []
    original = ClusterContrast.add_sources

    def add_sources(self: Any, **arguments: Any) -> None:
        starts.append({k: v.clone() for k, v in self.state_dict().items()})
        original(self, **arguments)

    monkeypatch.setattr(ClusterContrast, "add_sources", add_sources)
    runs = []
    for kind in ("rectified", "domain", "shared"):
        options = ("CC.SOURCES.BN", kind, "CC.SOURCES.PRETRAIN_EPOCHS", 1, "SOLVER.MAX_EPOCH", 2)
        losses = ("CC.SOURCES.LOSSES", '("CrossEntropyLoss","TripletLoss")', "DATASETS.TESTS", "()")
        more = ("MODEL.LOSSES.NAME", '("MemoryContrast","TripletLoss")', "CC.ITERS_PER_EPOCH", 1)
        run = watched(tmp_path / kind, monkeypatch, *JOINT, *options, *losses, *more)
        _, batches, found = run
        assert set(found[0]) == {"loss_cls_source", "loss_triplet_source"}
        of_both = {f"loss_{name}{part}" for name in NAMES for part in ("", "_source")}
        assert set(found[-1]) == of_both | {"loss_cls_source"}
        runs.append(batches)
    assert all(torch.equal(value, start[k]) for start in starts for k, value in starts[0].items())
    for others in zip(*runs, strict=True):
        domains = others[0]["domains"]
        assert all(torch.equal(batch["domains"], domains) for batch in others)
        seen = [[p for p, d in zip(b["img_paths"], domains, strict=True) if d] for b in others]
        assert seen[0] and seen[0] == seen[1] == seen[2]
