"""Registered losses beside stock ones: fastreid's Baseline and MGN, with true labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch

from fastreid_cc.errors import BadConfig
from fastreid_cc.losses.adasp import AdaSP
from fastreid_cc.structures import Batch

pytestmark = pytest.mark.usefixtures("plugin")
OURS = "('CrossEntropyLoss', 'TripletLoss', 'AdaSP')"
SMALL = (
    "MODEL.BACKBONE.NAME",
    "build_osnet_backbone",
    "MODEL.BACKBONE.DEPTH",
    "x0_25",
    "MODEL.BACKBONE.FEAT_DIM",
    128,
)
R50 = ("MODEL.BACKBONE.DEPTH", "50x", "MODEL.BACKBONE.FEAT_DIM", 2048)


def build(*pairs: object, device: str = "meta") -> Any:
    from fastreid.config import get_cfg
    from fastreid.modeling import build_model

    cfg = get_cfg()
    fixed = ("MODEL.DEVICE", device, "MODEL.BACKBONE.PRETRAIN", False, "MODEL.HEADS.NUM_CLASSES", 5)
    cfg.merge_from_list([str(value) for value in (*fixed, *pairs)])
    with torch.device(device):
        return build_model(cfg)


@pytest.mark.parametrize("name, small", [("Baseline", SMALL), ("MGN", R50)])
def test_a_stock_architecture_stays_stock_until_a_registered_loss_is_named(
    name: str, small: tuple[object, ...]
) -> None:
    stock = build("MODEL.META_ARCHITECTURE", name, *small)
    assert type(stock).__module__.startswith("fastreid.")
    ours = build("MODEL.META_ARCHITECTURE", name, *small, "MODEL.LOSSES.NAME", OURS)
    assert isinstance(ours, type(stock)) and list(ours.registered_losses) == ["AdaSP"]
    assert ours.state_dict().keys() == stock.state_dict().keys()


def test_an_unknown_loss_is_refused_where_stock_would_ignore_it() -> None:
    with pytest.raises(KeyError, match="Did you mean 'AdaSP'"):
        build(*SMALL, "MODEL.LOSSES.NAME", "('CrossEntropyLoss', 'AdaSPLoss')")


@pytest.mark.parametrize("name", ["MemoryContrast", "ECN"])
def test_a_loss_with_a_memory_is_refused_at_build_where_nothing_fills_one(
    name: str, tmp_path: Path
) -> None:
    off = ("CC.ENABLED", False, "MODEL.LOSSES.NAME", f"('TripletLoss', '{name}')")
    with pytest.raises(BadConfig, match=rf"{name}, which needs the memory.*CC.ENABLED.*AdaSP"):
        tiny_runs.build(tiny_runs.config(tmp_path, *off))


def inputs(size: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, 3, 96, 32, generator=generator) * 255
    return {"images": images, "targets": torch.arange(size) // 4}


def training_losses(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from fastreid.utils.events import EventStorage

    with EventStorage():
        return dict(model.train()(batch))


def test_baseline_adds_the_weighted_loss_of_its_features_to_unchanged_stock_losses() -> None:
    model = build(*SMALL, "MODEL.LOSSES.NAME", OURS, "MODEL.LOSSES.AdaSP.SCALE", 0.5, device="cpu")
    seen = []
    model.heads.register_forward_hook(lambda module, given, out: seen.append(out))
    found = training_losses(model, inputs())
    features, targets = seen[0]["features"], inputs()["targets"]
    expected = AdaSP()(Batch(features, targets, targets * 0, targets * 0))
    torch.testing.assert_close(found["loss_adasp"], 0.5 * expected)
    assert set(found) == {"loss_cls", "loss_triplet", "loss_adasp"}


@pytest.mark.parametrize("head", ["EmbeddingHead", "ClusterContrastHead"])
def test_mgn_weights_five_branches_by_a_fifth_with_and_without_a_classifier(head: str) -> None:
    model = build(
        "MODEL.META_ARCHITECTURE",
        "MGN",
        *R50,
        "MODEL.LOSSES.NAME",
        OURS,
        "MODEL.HEADS.NAME",
        head,
        "MODEL.LOSSES.AdaSP.SCALE",
        0.5,
    )
    outputs = {
        name: branch(i, head)
        for i, name in enumerate(("b1", "b2", "b21", "b22", "b3", "b31", "b32", "b33"))
    }
    targets = inputs()["targets"]
    from fastreid.utils.events import EventStorage

    with EventStorage():
        found = model.all_losses(outputs, targets, Batch(None, targets, targets, targets))
    parts = {
        "b1": ["b1"],
        "b2": ["b2"],
        "b3": ["b3"],
        "b22": ["b21", "b22"],
        "b33": ["b31", "b32", "b33"],
    }
    for name, heads in parts.items():
        joined = torch.cat([outputs[head]["features"] for head in heads], dim=1)
        expected = AdaSP()(Batch(joined, targets, targets, targets))
        torch.testing.assert_close(found[f"loss_adasp_{name}"], 0.1 * expected)
        assert found[f"loss_triplet_{name}"] > 0
    assert ("loss_cls_b31" in found) == (head == "EmbeddingHead")


def branch(seed: int, head: str) -> dict[str, torch.Tensor]:
    features = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
    if head != "EmbeddingHead":
        return {"features": features, "embedding": features}
    logits = features[:, :5]
    return {"features": features, "cls_outputs": logits, "pred_class_logits": logits}


def test_mgn_trains_every_branch_and_keeps_the_targets_of_the_loader() -> None:
    model = build(
        "MODEL.META_ARCHITECTURE",
        "MGN",
        *R50,
        "MODEL.LOSSES.NAME",
        "('AdaSP',)",
        "MODEL.HEADS.NAME",
        "ClusterContrastHead",
        "MODEL.HEADS.NECK_FEAT",
        "after",
        "MODEL.HEADS.EMBEDDING_DIM",
        16,
        device="cpu",
    )
    batch = inputs()
    found = training_losses(model, batch)
    assert set(found) == {f"loss_adasp_{name}" for name in ("b1", "b2", "b3", "b22", "b33")}
    sum(found.values()).backward()  # type: ignore[union-attr]
    still = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not still  # nothing is left out, which would stop DDP
    assert batch["targets"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    batch["targets"].fill_(-1)  # fastreid's PreciseBN
    assert training_losses(model, batch)["loss_none"] == 0
    assert model.eval()(inputs()).shape == (8, 128)


def test_mgn_compares_the_joined_embedding_with_one_memory_on_pseudo_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastreid.modeling.meta_arch.mgn import MGN

    from fastreid_cc.memories.cluster import ClusterMemory

    model = build(
        "MODEL.META_ARCHITECTURE",
        "MGN",
        *R50,
        "MODEL.LOSSES.NAME",
        "('MemoryContrast','SupCon')",
        "MODEL.HEADS.NAME",
        "ClusterContrastHead",
        device="cpu",
    )
    outputs = [branch(i, "ClusterContrastHead") for i in range(8)]
    targets = inputs()["targets"]
    memory = ClusterMemory()
    memory.reset(torch.nn.functional.normalize(torch.randn(8, 48)), targets)
    model.step.start_stage(memory)
    monkeypatch.setattr(MGN, "forward", lambda self, inputs: self.losses(*outputs, targets))
    cameras = targets + 3
    found = model.train()({"targets": targets, "camids": cameras, "indices": targets + 5})
    order = [0, 1, 4, 2, 3, 5, 6, 7]  # b1 b2 b3 b21 ... as MGN joins them in evaluation
    joined = torch.cat([outputs[i]["embedding"] for i in order], dim=1)
    batch = model.step.take_last_batch()
    torch.testing.assert_close(batch.features, joined)
    assert batch.cameras.tolist() == cameras.tolist() and model.step.last_batch is None
    expected = model.registered_losses["MemoryContrast"](batch, memory)
    torch.testing.assert_close(found["loss_memory_contrast"], expected)
    assert {"loss_sup_con_b1", "loss_sup_con_b33"} < set(found)
