"""Networks of timm as backbones: every family learns without labels, in one process and in two,
is measured, resumes and is exported; faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gloo import run_in_two
from test_resume import same_end
from tiny_runs import CLIP_PAIRS, build, config, digest, metrics, plugin_at

from fastreid_cc.errors import BadConfig, MissingWeights
from fastreid_cc.networks.timm_network import TimmNetwork, load_timm

pytestmark = pytest.mark.usefixtures("plugin")
SIZE = (64, 32)
PIXELS = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
VIT = ("embed_dim=16", "depth=2", "num_heads=2", "patch_size=8")

#: Family -> name, arguments that make it small, size of its features, whether they are a map.
FAMILIES: dict[str, tuple[str, tuple[str, ...], int, bool]] = {
    "ViT": ("test_vit", (), 64, False),
    "CLIP": ("vit_base_patch16_clip_quickgelu_224", VIT, 16, False),
    "DINOv2": ("vit_small_patch14_dinov2", VIT, 16, False),
    "DINOv3": (
        "vit_small_patch16_dinov3",
        ("embed_dim=48", "depth=2", "num_heads=2", "patch_size=8"),
        48,
        False,
    ),
    "SigLIP": ("vit_base_patch16_siglip_224", VIT, 16, False),
    "BEiT": ("beit_base_patch16_224", VIT, 16, False),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        ("embed_dim=16", "depths=(1,1)", "num_heads=(1,2)", "window_size=4"),
        32,
        True,
    ),
    "ConvNeXt": ("test_convnext", (), 64, True),
    "ResNet": ("test_resnet", (), 96, True),
    "EfficientNet": ("test_efficientnet", (), 256, True),
    "NFNet": ("test_nfnet", (), 192, True),
    "MambaOut": ("test_mambaout", (), 64, True),
    "RepVGG and others": ("test_byobnet", (), 256, True),
}
#: One of each, as people use them: built without memory.
REAL = (
    "vit_base_patch16_224",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch14_dinov2",
    "vit_base_patch16_dinov3",
    "vit_base_patch16_siglip_224",
    "swin_base_patch4_window7_224",
    "convnext_base",
    "convnextv2_base",
    "efficientnet_b0",
    "tf_efficientnetv2_s",
    "resnet50",
    "regnety_016",
    "mobilenetv4_conv_small",
)


def pairs(family: str, *more: object) -> tuple[object, ...]:
    """KEY, VALUE of a family over the tiny run's."""
    name, arguments, size, is_map = FAMILIES[family]
    pool = "GlobalAvgPool" if is_map else "Identity"
    keys = {"NAME": name, "ARGUMENTS": arguments}
    timm = [x for k, v in keys.items() for x in (f"MODEL.BACKBONE.TIMM.{k}", v)]
    return (
        *("MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.BACKBONE.FEAT_DIM", size),
        *("MODEL.HEADS.POOL_LAYER", pool, "CC.COLLAPSE.EPS_BOUND", 0.5, "DATASETS.TESTS", "()"),
        *("INPUT.SIZE_TRAIN", list(SIZE), "INPUT.SIZE_TEST", list(SIZE)),
        *timm,
        *more,
    )


def network(family: str, **arguments: Any) -> TimmNetwork:
    name, small, *_ = FAMILIES[family]
    return TimmNetwork(SIZE, PIXELS, name=name, arguments=small, **arguments)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_a_label_free_epoch(family: str, tmp_path: Path) -> None:
    once = ("SOLVER.MAX_EPOCH", 1, "CC.ITERS_PER_EPOCH", 1, "SOLVER.CHECKPOINT_PERIOD", 100)
    trainer = build(config(tmp_path, *pairs(family, *once)))
    before = {k: v.clone() for k, v in trainer.model.named_parameters()}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    moved = [k for k in before if not torch.equal(before[k], after[k])]
    assert len(moved) > 0.5 * len(before) and any(k.startswith("backbone.") for k in moved)
    assert all(torch.isfinite(v).all() for v in after.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_features_have_the_shape_that_heads_expect_and_load_back(family: str) -> None:
    *_, size, is_map = FAMILIES[family]
    model = network(family).eval()
    assert (model.feature_size, model.is_map) == (size, is_map)
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        found = model(images)
        assert found.ndim == 4 and found.shape[:2] == (2, size)
        assert is_map or found.shape[2:] == (1, 1)
        other = network(family).eval()
        assert not torch.equal(other(images), found)
        said = load_timm(other, model.model.state_dict())
        assert torch.equal(other(images), found)
    assert said.endswith("weights read")


@pytest.mark.parametrize("name", REAL)
def test_real_networks_are_built_by_name(name: str) -> None:
    with torch.device("meta"):
        found = TimmNetwork((256, 128) if "patch14" not in name else (252, 126), PIXELS, name=name)
    assert found.feature_size >= 384 and sum(p.numel() for p in found.parameters()) > 2e6


@pytest.mark.parametrize("features", ["class", "mean", "pooled"])
def test_tokens_are_those_asked_for(features: str) -> None:
    model = network("DINOv3", features=features).eval()
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        tokens = model.model.forward_features(images)
        assert tokens.shape[1] == 5 + 32  # class, four registers, 8 x 4 patches
        wanted = {"class": tokens[:, 0], "mean": tokens[:, 5:].mean(1)}
        wanted["pooled"] = model.model.forward_head(tokens, pre_logits=True)
        torch.testing.assert_close(model(images)[..., 0, 0], wanted[features])


@pytest.mark.parametrize(
    "family, features", [("SigLIP", "class"), ("SigLIP", "auto"), ("ConvNeXt", "auto")]
)
def test_what_the_features_do_not_pass_is_frozen(family: str, features: str) -> None:
    model = network(family, features=features)
    model(torch.randn(4, 3, *SIZE)).square().sum().backward()
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {name for name, p in model.named_parameters() if p.grad is not None}
    is_whole = (family, features) == ("SigLIP", "auto")  # its pooling of tokens is used
    assert (len(learns) == len(list(model.parameters()))) == is_whole


def test_pixels_of_the_model() -> None:
    """Images normalised by the config come as if normalised by the network's own values."""
    plain, own = network("SigLIP"), network("SigLIP", pixels="model")
    load_timm(own, plain.state_dict())
    cfg = plain.model.pretrained_cfg
    assert cfg["mean"] == (0.5, 0.5, 0.5)
    pixels = torch.rand(2, 3, *SIZE)
    mean, std = (torch.tensor(values).view(-1, 1, 1) / 255 for values in PIXELS)
    with torch.no_grad():
        got, wanted = own.eval()((pixels - mean) / std), plain.eval()((pixels - 0.5) / 0.5)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["ViT", "ConvNeXt"])
def test_checkpointing_changes_no_gradient(family: str) -> None:
    images, found = torch.randn(2, 3, *SIZE), []
    start = network(family).state_dict()
    for again in (False, True):
        model = network(family, checkpointing=again).train()
        model.load_state_dict(start)
        model(images).square().sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["timm", "clip"])
def test_layers_learn_at_rates_that_fall_towards_the_pixels(kind: str, tmp_path: Path) -> None:
    clip = ("MODEL.BACKBONE.NAME", "build_clip_backbone", "MODEL.BACKBONE.FEAT_DIM", 24)
    node = "MODEL.BACKBONE." + ("TIMM" if kind == "timm" else "CLIP")
    chosen = pairs("ViT") if kind == "timm" else (*clip, *CLIP_PAIRS)
    trainer = build(config(tmp_path, *chosen, f"{node}.LAYER_DECAY", 0.5))
    base, groups = trainer.cfg.SOLVER.BASE_LR, trainer.optimizer.param_groups
    factors = {  # fastreid keeps the parameters of a rate in one buffer
        buffer.untyped_storage().data_ptr(): group["initial_lr"] / base
        for group in groups
        for buffer in group["params"]
    }
    rates = {
        name: factors[p.untyped_storage().data_ptr()]
        for name, p in trainer.model.named_parameters()
        if p.requires_grad
    }
    first = "model.patch_embed.proj.weight" if kind == "timm" else "class_embedding"
    block = (
        "model.blocks.{}.mlp.fc1.weight" if kind == "timm" else "transformer.resblocks.{}.ln_1.bias"
    )
    last = "model.norm.weight" if kind == "timm" else "ln_post.weight"
    depth = max(i for i in range(20) if f"backbone.{block.format(i)}" in rates)
    assert rates[f"backbone.{last}"] == rates["heads.bottleneck.0.weight"] == 1
    found = [rates[f"backbone.{block.format(i)}"] for i in range(depth + 1)]
    assert np.allclose(found[1:], 2 * np.array(found[:-1]))
    assert rates[f"backbone.{first}"] == pytest.approx(found[0] / 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_is_measured_and_resumes_to_the_same_bytes(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_end(tmp_path, monkeypatch, 3, *pairs(family, "DATASETS.TESTS", "('SyntheticReID',)"))
    ends = [metrics(tmp_path / part)[-1]["mAP"] for part in ("whole", "parts")]
    assert ends[0] == ends[1] and 0 < ends[0] < 100


def train_families(folder: Path, data_root: Path) -> dict[str, tuple[str, float]]:
    """Family -> the digest of a process' network after an epoch, and how far it moved."""
    from fastreid.utils import comm

    found, once = {}, ("SOLVER.MAX_EPOCH", 1, "SOLVER.CHECKPOINT_PERIOD", 100)
    comm._LOCAL_PROCESS_GROUP = dist.new_group()
    with plugin_at(data_root):
        for family in FAMILIES:
            trainer = build(config(folder / family, *pairs(family, *once)))
            before = [p.detach().clone() for p in trainer.model.parameters()]
            trainer.train()
            moved = [
                (a - b).abs().max().item()
                for a, b in zip(before, trainer.model.parameters(), strict=True)
            ]
            found[family] = digest(trainer.model.state_dict()), max(moved)
    comm._LOCAL_PROCESS_GROUP = None
    return found


def test_two_processes_end_with_one_network(tmp_path: Path, data_root: Path) -> None:
    first, second = run_in_two(train_families, tmp_path, data_root, timeout=300)
    assert list(first) == list(FAMILIES) and first == second
    assert all(0 < moved < 1 for _, moved in first.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_is_exported(family: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from fastreid_cc.plugin.offline.onnx_export import (
        build_embedder,
        largest_difference,
        write_onnx,
    )

    embedder = build_embedder(config(tmp_path, *pairs(family)))
    write_onnx(embedder, tmp_path / "model.onnx", size=SIZE)
    assert largest_difference(embedder, tmp_path / "model.onnx", size=SIZE) < 1e-4


def test_weights_in_safetensors_start_a_run(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    given = network("ViT").model.state_dict()
    save_file(given, tmp_path / "model.safetensors")
    path = ("MODEL.BACKBONE.PRETRAIN_PATH", tmp_path / "model.safetensors")
    trainer = build(config(tmp_path / "run", *pairs("ViT", "MODEL.BACKBONE.PRETRAIN", True, *path)))
    own = trainer.model.backbone.model.state_dict()
    assert all(torch.equal(own[name], weight) for name, weight in given.items())


def test_positions_are_resized_to_the_images() -> None:
    square, other = TimmNetwork((32, 32), PIXELS, name="test_vit"), network("ViT")
    load_timm(other, square.model.state_dict())
    assert other.model.pos_embed.shape[1] == 1 + 8 and square.model.pos_embed.shape[1] == 1 + 4


@pytest.mark.parametrize(
    "more, text",
    [
        (
            ("MODEL.BACKBONE.TIMM.NAME", "resnet5o"),
            "no such network. Did you mean resnet50",
        ),
        (("MODEL.BACKBONE.TIMM.ARGUMENTS", "('depht=2',)"), "cannot be built .*depht"),
        (("MODEL.BACKBONE.TIMM.ARGUMENTS", "('depth',)"), "'depth' must be name=value"),
        (("MODEL.BACKBONE.TIMM.FEATURES", "map"), "test_vit gives tokens. Set it to auto"),
        (("MODEL.BACKBONE.FEAT_DIM", 2048), "FEAT_DIM=2048 must be 64"),
        (("MODEL.HEADS.POOL_LAYER", "GlobalAvgPool"), "Set it to Identity"),
    ],
)
def test_what_cannot_work_is_said(more: tuple[object, ...], text: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=text):
        build(config(tmp_path, *pairs("ViT", *more)))


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MissingWeights, match="MODEL.BACKBONE.TIMM: cls_token is missing"):
        load_timm(network("ViT"), {"conv1.weight": torch.zeros(1)})
