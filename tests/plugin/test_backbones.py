"""Every backbone family that fastreid or the plug-in registers trains a label-free epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_runs import CLIP_PAIRS, VIT_PAIRS, build, config

pytestmark = pytest.mark.usefixtures("plugin")

#: builder -> smallest DEPTH, FEAT_DIM, further pairs.
FAMILIES: dict[str, tuple[str, int, tuple[object, ...]]] = {
    "build_resnet_backbone": ("18x", 512, ()),
    "build_osnet_backbone": ("x0_25", 128, ()),
    "build_resnest_backbone": ("50x", 2048, ()),
    "build_resnext_backbone": ("50x", 2048, ()),
    "build_regnet_backbone": ("200x", 368, ()),
    "build_effnet_backbone": ("b0", 1280, ()),
    "build_shufflenetv2_backbone": ("0.5x", 1024, ()),
    "build_mobilenetv2_backbone": ("0.1x", 1280, ()),
    "build_mobilenetv3_backbone": ("Small", 1024, ()),
    "build_repvgg_backbone": ("A0", 1280, ()),
    "build_vit_backbone": ("small", 768, VIT_PAIRS),
    "build_clip_backbone": ("", 24, CLIP_PAIRS),  # ours
}


def test_the_list_is_whole() -> None:
    from fastreid.modeling.backbones import BACKBONE_REGISTRY

    assert set(BACKBONE_REGISTRY._obj_map) == {*FAMILIES, "build_timm_backbone"}  # test_timm.py


@pytest.mark.parametrize("name", FAMILIES)
def test_a_backbone_trains_one_label_free_epoch(name: str, tmp_path: Path) -> None:
    depth, size, more = FAMILIES[name]
    cfg = config(
        tmp_path,
        "MODEL.BACKBONE.NAME",
        name,
        "MODEL.BACKBONE.DEPTH",
        depth,
        "MODEL.BACKBONE.FEAT_DIM",
        size,
        "SOLVER.MAX_EPOCH",
        1,
        "CC.ITERS_PER_EPOCH",
        1,
        "SOLVER.CHECKPOINT_PERIOD",
        100,
        "CC.COLLAPSE.EPS_BOUND",
        0.5,
        "DATASETS.TESTS",
        "()",
        *more,
    )
    trainer = build(cfg)
    before = {k: v.clone() for k, v in trainer.model.named_parameters()}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    moved = [k for k in before if not torch.equal(before[k], after[k])]
    assert any(k.startswith("backbone.") for k in moved)
    assert len(moved) > 0.5 * len(before)
    assert all(torch.isfinite(v).all() for v in after.values())
