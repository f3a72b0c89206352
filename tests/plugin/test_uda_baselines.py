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


def test_the_strong_baseline_holds_source_classes_as_published(tmp_path: Path) -> None:
    """configs/Base-UDA-Strong.yml: both domains in every step, losses of each, no pre-training."""
    joint = {"MODE": "joint", "BN": "domain", "LOSSES": "()", "PRETRAIN_EPOCHS": 0}
    changes = {f"CC.SOURCES.{key}": value for key, value in joint.items()}
    trainer = tiny("strong-baseline", tmp_path, **changes, **{"SOLVER.MAX_EPOCH": 1})
    memory = trainer._hooks[0].memory
    kinds = ("loss_memory_contrast", "loss_batch_hard_triplet")
    assert set(last(trainer)) == {f"{kind}{of}" for kind in kinds for of in ("", "_source")}
    assert memory.num_sources == 8 and memory.steps == 2
    lengths = memory.rows.norm(dim=1)
    assert ((lengths - 1).abs() > 1e-6).all()  # source rows and clusters learnt


def test_two_networks_learn_with_a_classifier_each(tmp_path: Path) -> None:
    trainer = tiny("mmt-classifier", tmp_path)
    memory = next(hook.memory for hook in trainer._hooks if hasattr(hook, "memory"))
    kinds = {"memory_contrast", "soft_contrast", "batch_hard_triplet", "soft_triplet"}
    assert {f"loss_{k}{of}" for k in kinds for of in ("", "_peer")} <= set(last(trainer))
    assert memory.first.steps == memory.second.steps == 2
    assert not torch.equal(memory.first.rows, memory.second.rows)


def test_the_super_strong_baseline_trains_no_outlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.memories.hybrid import HybridMemory

    seen, update = [], HybridMemory.update
    monkeypatch.setattr(
        HybridMemory, "update", lambda self, batch: (seen.append(batch), update(self, batch))[1]
    )
    few = {"CC.CLUSTER.DBSCAN.EPS": 0.45, "CC.CLUSTER.DBSCAN.MIN_SAMPLES": 3}
    hook = tiny("super-strong", tmp_path, **few)._hooks[0]
    outliers = hook.labels.labels < 0
    assert outliers.any() and (hook.targets[outliers] == -1).all()
    assert int(hook.memory.row_classes.max()) + 1 == 8 + hook.labels.num_clusters
    assert all((batch.targets >= 0).all() for batch in seen) and len(seen) == 4


def test_theory_and_practice_trains_by_triplets_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The neck, which no loss sees, has a zero gradient: DistributedDataParallel asks for one."""
    from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast

    losses, unused = ClusterContrast.losses, []

    def watched(self: Any, outputs: Any, batch: Any, step: Any) -> Any:
        found = losses(self, outputs, batch, step)
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        total = sum(found.values())
        gradients = torch.autograd.grad(
            total, [p for _, p in named], retain_graph=True, allow_unused=True
        )
        unused.extend(n for (n, _), g in zip(named, gradients, strict=True) if g is None)
        return found

    monkeypatch.setattr(ClusterContrast, "losses", watched)
    trainer = tiny("uda-tp", tmp_path)
    hook, model = trainer._hooks[0], trainer.model
    assert set(model.registered_losses) == {"BatchHardTriplet"} and not model.step.is_warm_up
    assert 0 < trainer.storage.history("total_loss").latest() < 10
    assert hook.labels.eps != hook.labeler.clusterer.eps  # found at the first labelling
    assert unused == []
