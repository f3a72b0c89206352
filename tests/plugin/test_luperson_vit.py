"""TransReID-SSL's ViT-S: the published sizes and names, its stem, its recipe, positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_timm import PIXELS, VIT
from tiny_runs import ROOT, build, config
from torch import Tensor, nn
from torch.nn import functional as F

from fastreid_cc.errors import BadConfig, MissingWeights
from fastreid_cc.networks.ics_stem import IcsStem
from fastreid_cc.networks.timm_network import TimmNetwork, load_timm

pytestmark = pytest.mark.usefixtures("plugin")
NAME = "vit_small_patch16_224"


def tiny(size: tuple[int, int] = (64, 32), stem: str = "ics", **more: Any) -> TimmNetwork:
    """A ViT of width 16 with patches of 8 pixels."""
    return TimmNetwork(size, PIXELS, name=NAME, features="class", arguments=VIT, stem=stem, **more)


def from_file(leaf: str, *pairs: object) -> Any:
    """A shipped config on no device."""
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs" / f"{leaf}.yml"))
    fixed = ("MODEL.DEVICE", "meta", "MODEL.BACKBONE.PRETRAIN", False)
    cfg.merge_from_list([str(value) for value in (*fixed, *pairs)])
    return cfg


@pytest.mark.parametrize(
    "leaf, parameters, per_bn",
    [
        ("Market1501/cc_ViT-S-LUP", 21_640_320, 64),
        ("MSMT17/cc_ViT-S-ICS-LUP", 23_001_792, 128),
    ],
)
def test_a_shipped_config_is_the_published_network_and_recipe(
    leaf: str, parameters: int, per_bn: int
) -> None:
    """21.64 and 23.00 million parameters at 256x128, the neck's batch norm included."""
    from fastreid.engine import DefaultTrainer
    from fastreid.modeling import build_model

    cfg = from_file(leaf)
    with torch.device("meta"):
        model = build_model(cfg)
        optimizer, _ = DefaultTrainer.build_optimizer(cfg, model)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.backbone.model.patch_embed.grid_size == (16, 8)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["heads.bottleneck.0.bias"]
    wanted = {"lr": 3.5e-4, "weight_decay": 5e-4, "momentum": 0.9, "nesterov": False}
    for key, value in wanted.items():
        assert {group[key] for group in optimizer.param_groups} == {value}
    blocks = model.backbone.model.blocks
    drops = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert drops == pytest.approx([0.3 * at / 11 for at in range(12)])
    assert {block.norm1.eps for block in blocks} == {1e-6}
    heads = {block.attn.num_heads for block in blocks}
    assert heads == {6} and isinstance(blocks[0].mlp.act, nn.GELU)
    assert (cfg.CC.SAMPLES_PER_BN, cfg.DATALOADER.NUM_INSTANCE) == (per_bn, 8)
    assert (cfg.CC.MEMORY.CLUSTER.UPDATE, cfg.CC.MEMORY.CLUSTER.MOMENTUM) == ("hard", 0.2)


def test_the_stem_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        stem = IcsStem((256, 128), 16, 3, 384)
    names = {name: tuple(weight.shape) for name, weight in stem.named_parameters()}
    norms = {f"conv.{n}.{k}.{w}": (32,) for n in (1, 4) for k in ("IN", "BN") for w in WORDS}
    assert names == {
        "conv.0.weight": (64, 3, 7, 7),
        "conv.3.weight": (64, 64, 3, 3),
        "conv.6.weight": (64, 64, 3, 3),
        **norms,
        "conv.7.weight": (64,),
        "conv.7.bias": (64,),
        "proj.weight": (384, 64, 8, 8),
        "proj.bias": (384,),
    }
    buffers = {name for name, _ in stem.named_buffers() if name.endswith("running_mean")}
    assert buffers == {f"conv.{n}.running_mean" for n in ("1.BN", "4.BN", "7")}  # none of IN


WORDS = ("weight", "bias")


def normalised(x: Tensor, over: tuple[int, ...], norm: nn.Module) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over some axes, scaled and shifted by channel."""
    mean, variance = x.mean(over, keepdim=True), x.var(over, unbiased=False, keepdim=True)
    scale, shift = (getattr(norm, word)[:, None, None] for word in WORDS)
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


@pytest.mark.parametrize("training", [True, False])
def test_the_stem_computes_what_its_formula_says(training: bool) -> None:
    """Instance norm by image on channels 0..31, in evaluation too; batch norm on the others."""
    torch.manual_seed(0)
    stem = IcsStem((16, 24), 8, 3, 5).double()
    for parameter in stem.parameters():
        nn.init.normal_(parameter, std=0.5)
    images = torch.randn(3, 3, 16, 24, dtype=torch.float64)
    stem.train()(images)
    before = {k: v.clone() for k, v in stem.state_dict().items()}
    got = stem.train(training)(images)

    def batch_norm(x: Tensor, name: str) -> Tensor:
        norm = stem.get_submodule(name)
        if training:
            return normalised(x, (0, 2, 3), norm)
        mean, variance = (before[f"{name}.running_{w}"][:, None, None] for w in ("mean", "var"))
        scale, shift = (getattr(norm, word)[:, None, None] for word in WORDS)
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x, conv = images, stem.conv
    for at, stride in ((0, 2), (3, 1), (6, 1)):
        weight = before[f"conv.{at}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        if at < 6:
            first = normalised(x[:, :32], (2, 3), conv[at + 1].IN)
            x = torch.cat([first, batch_norm(x[:, 32:], f"conv.{at + 1}.BN")], 1)
        else:
            x = batch_norm(x, "conv.7")
        x = x.clamp(min=0)
    patches = x.reshape(3, 64, 2, 4, 3, 4).permute(0, 2, 4, 1, 3, 5).flatten(3)  # 4x4 blocks
    wanted = patches @ stem.proj.weight.flatten(1).T + stem.proj.bias
    torch.testing.assert_close(got, wanted.flatten(1, 2), rtol=1e-9, atol=1e-9)


def published(model: TimmNetwork) -> dict[str, Any]:
    """A checkpoint as DINO writes it: student and teacher, each a backbone and a head."""
    own = {f"backbone.{name}": w.clone() for name, w in model.model.state_dict().items()}
    head = {"head.mlp.0.weight": torch.ones(4, 16), "head.last_layer.weight_g": torch.ones(4)}
    student = {f"module.{name}": torch.zeros_like(w) for name, w in {**own, **head}.items()}
    return {"student": student, "teacher": {**own, **head}, "epoch": 100}


@pytest.mark.parametrize("stem", ["own", "ics"])
def test_a_published_checkpoint_starts_a_run_that_trains_the_stem(
    stem: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    torch.save(published(given := tiny(stem=stem)), tmp_path / "vit.pth")
    size = ("INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32], "DATASETS.TESTS", "()")
    keys = {"NAME": NAME, "FEATURES": "class", "STEM": stem, "ARGUMENTS": VIT}
    trainer = build(
        config(
            tmp_path / "run",
            *("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.BACKBONE.FEAT_DIM", 16),
            *("MODEL.HEADS.POOL_LAYER", "Identity", "CC.COLLAPSE.EPS_BOUND", 0.5, *size),
            *("MODEL.BACKBONE.PRETRAIN", True),
            *("MODEL.BACKBONE.PRETRAIN_PATH", tmp_path / "vit.pth"),
            *("SOLVER.MAX_EPOCH", 1, "CC.ITERS_PER_EPOCH", 1, "CC.SAMPLES_PER_BN", 4),
            *[x for k, v in keys.items() for x in (f"MODEL.BACKBONE.TIMM.{k}", v)],
        )
    )
    own, wanted = trainer.model.backbone.model.state_dict(), given.model.state_dict()
    assert own.keys() == wanted.keys()
    assert all(torch.equal(own[name], weight) for name, weight in wanted.items())
    if stem == "ics":
        assert trainer.model.backbone.model.patch_embed.conv[7].samples_per_bn == 4
        trainer.train()
        after = trainer.model.backbone.model.patch_embed.state_dict()
        still = [k for k, w in after.items() if torch.equal(w, wanted[f"patch_embed.{k}"])]
        assert still == []


def test_positions_of_a_portrait_grid_are_resized_bilinearly() -> None:
    """4x2 patches to 6x2: row r lies at (r + 0.5) 4/6 - 0.5 of the old ones."""
    old, new = tiny((32, 16)), tiny((48, 16))
    said = load_timm(new, old.model.state_dict())
    assert "positions resized from 4x2 patches to 6x2, bilinear" in said
    was = old.model.pos_embed[0, 1:].reshape(4, 2, -1)
    for row in range(6):
        place = max(0.0, (row + 0.5) * 4 / 6 - 0.5)
        low = min(int(place), 3)
        share = place - low
        wanted = (1 - share) * was[low] + share * was[min(low + 1, 3)]
        got = new.model.pos_embed[0, 1:].reshape(6, 2, -1)[row]
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(new.model.pos_embed[0, 0], old.model.pos_embed[0, 0])


def test_what_cannot_work_is_said() -> None:
    with pytest.raises(MissingWeights, match="STEM=ics: nobody's download has that stem"):
        tiny(download=True)
    with pytest.raises(BadConfig, match="must be a multiple of the patch, 8"):
        tiny((60, 32))
    with pytest.raises(BadConfig, match="resnet50 cannot be built .*embed_layer"):
        TimmNetwork((64, 32), PIXELS, name="resnet50", stem="ics")
    with pytest.raises(BadConfig, match="INPUT.SIZE_TEST must be INPUT.SIZE_TRAIN"):
        tiny()(torch.zeros(1, 3, 32, 32))
    with pytest.raises(MissingWeights, match=r"patch_embed.conv.0.weight is missing"):
        load_timm(tiny(), tiny(stem="own").model.state_dict())
