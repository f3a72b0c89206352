"""The CLIP recipe as configured: names, groups, rates, ten recorded steps; and faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import CLIP_PAIRS, ROOT, build, config, metrics
from torch import Tensor

from fastreid_cc.errors import BadConfig, MissingWeights
from fastreid_cc.memories.cluster import ClusterMemory

pytestmark = pytest.mark.usefixtures("plugin")
DATA = ROOT / "tests" / "parity" / "clip"
CONFIG = ROOT / "configs" / "Market1501" / "cc_CLIP-B16.yml"


def load(name: str) -> dict[str, Any]:
    """Arrays of a file; weights as float32 tensors."""
    with np.load(DATA / name) as file:
        return {key: file[key] for key in file}


def recipe(*pairs: object) -> Any:
    """The shipped config on a CPU, from random weights."""
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIG))
    fixed = ("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False)
    cfg.merge_from_list([str(value) for value in (*fixed, *pairs)])
    return cfg


def small(data: dict[str, Any]) -> Any:
    """The recipe with the network of a recorded file."""
    height, width, patch, stride, size, depth, heads, embed, *_ = data["config"].tolist()
    sizes = {"WIDTH": size, "DEPTH": depth, "HEADS": heads, "EMBED_DIM": embed, "PATCH": patch}
    sizes["STRIDE"] = stride
    keys = [x for k, v in sizes.items() for x in (f"MODEL.BACKBONE.CLIP.{k}", v)]
    images = ("INPUT.SIZE_TRAIN", [height, width], "INPUT.SIZE_TEST", [height, width])
    return recipe(*keys, *images, "MODEL.BACKBONE.FEAT_DIM", size + embed)


def ours(name: str) -> str:
    """Our name of a recorded weight of the tower."""
    return name.replace("image_encoder.", "backbone.")


def neck(data: dict[str, Any], prefix: str, name: str) -> Tensor:
    """The recorded two batch norms as one, along the last axis."""
    parts = [data[f"{prefix}bottleneck{part}.{name}"] for part in ("", "_proj")]
    return torch.from_numpy(np.concatenate(parts, axis=-1)).float()


def network(data: dict[str, Any], cfg: Any) -> Any:
    """fastreid's model of a config with the recorded weights."""
    from fastreid.modeling import build_model

    model = build_model(cfg)
    found = {
        ours(key[2:]): torch.from_numpy(array).float()
        for key, array in data.items()
        if key.startswith("w/image_encoder.")
    }
    for name in ("weight", "bias", "running_mean", "running_var"):
        found[f"heads.bottleneck.0.{name}"] = neck(data, "w/", name)
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert not unexpected and all(
        k.endswith(("num_batches_tracked", "pixel_mean", "pixel_std")) for k in missing
    )
    return model


def features(model: Any, images: Tensor) -> Tensor:
    """Unit features as extraction sees them."""
    with torch.no_grad():
        found = model.eval()({"images": images.clone(), "for_memory": True})
    return torch.nn.functional.normalize(found)


@pytest.mark.parametrize("name", ["steps_all", "steps_hard", "steps_recipe_d12"])
def test_ten_steps_equal_the_recorded_ones(name: str) -> None:
    from fastreid.engine import DefaultTrainer
    from fastreid.utils.events import EventStorage

    data = load(f"{name}.npz")
    cfg = small(data)
    model = network(data, cfg)
    optimizer, _ = DefaultTrainer.build_optimizer(cfg, model)
    images = torch.from_numpy(data["images"]).float()
    labels = torch.from_numpy(data["labels"])
    before = features(model, images)
    torch.testing.assert_close(before, torch.from_numpy(data["eval_before"]), rtol=0, atol=1e-6)
    memory = ClusterMemory(
        temperature=cfg.CC.MEMORY.CLUSTER.TEMPERATURE,
        momentum=cfg.CC.MEMORY.CLUSTER.MOMENTUM,
        update=str(data["update"]),
    )
    memory.reset(before, labels)
    torch.testing.assert_close(memory.rows, torch.from_numpy(data["memory0"]), rtol=0, atol=1e-6)
    model.step.memory = memory
    kept = {int(step): at for at, step in enumerate(data["kept_steps"])}
    for step, (rows, rate) in enumerate(zip(data["batch"], data["lr"], strict=True)):
        batch = torch.from_numpy(rows)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        with EventStorage():
            losses = model.train()(
                {
                    "images": images[batch].clone(),
                    "targets": labels[batch],
                    "indices": batch,
                    "camids": torch.zeros_like(batch),
                }
            )
        (loss,) = losses.values()
        assert loss.item() == pytest.approx(float(data["loss"][step]), abs=5e-5)
        loss.backward()
        if step == 0 and "grad0/image_encoder.proj" in data:
            for key, parameter in model.backbone.named_parameters():
                if parameter.requires_grad:
                    wanted = torch.from_numpy(data[f"grad0/image_encoder.{key}"])
                    torch.testing.assert_close(parameter.grad, wanted, rtol=0, atol=1e-5)
            wanted = neck(data, "grad0/", "weight")
            gradient = model.heads.bottleneck[0].weight.grad
            torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-5)
        optimizer.step()
        last = model.step.last_batch
        unit = torch.nn.functional.normalize(last.features)
        torch.testing.assert_close(
            unit, torch.from_numpy(data["features"][step]), rtol=0, atol=2e-5
        )
        memory.update(last)
        torch.testing.assert_close(
            memory.rows, torch.from_numpy(data["memory_after"][step]), rtol=0, atol=2e-5
        )
        if (at := kept.get(step + 1)) is not None:
            _compare_weights(model, data, at, 2e-6 if name == "steps_recipe_d12" else 5e-6)
    after = features(model, images)
    torch.testing.assert_close(after, torch.from_numpy(data["eval_after"]), rtol=0, atol=2e-5)


def _compare_weights(model: Any, data: dict[str, Any], at: int, tolerance: float) -> None:
    state = model.state_dict()
    keys = [key for key in data if key.startswith("after/image_encoder.")]
    assert len(keys) > 20
    for key in keys:
        wanted = torch.from_numpy(data[key][at])
        got = state[ours(key.removeprefix("after/"))]
        torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)
    for name, atol in (("weight", tolerance), ("running_mean", 2e-5), ("running_var", 2e-5)):
        wanted = neck(data, "after/", name)[at]
        torch.testing.assert_close(state[f"heads.bottleneck.0.{name}"], wanted, rtol=0, atol=atol)
    first = torch.from_numpy(data["w/image_encoder.conv1.weight"]).float()
    assert torch.equal(state["backbone.conv1.weight"], first)  # frozen


def test_a_whole_published_checkpoint_gives_the_recorded_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`convert --whole`: image encoder and both batch norms, for MODEL.WEIGHTS."""
    from fastreid.utils.checkpoint import Checkpointer

    from fastreid_cc import __main__ as cli

    monkeypatch.setenv("FASTREID_CC_IMPORT", "")
    data = load("tower_w64_d2.npz")
    cfg = small(data)
    published = {f"module.{k[2:]}": torch.from_numpy(v) for k, v in data.items() if k[:2] == "w/"}
    torch.save({"state_dict": published, "epoch": 60}, tmp_path / "checkpoint.pth.tar")
    pairs = [
        x for k in ("WIDTH", "DEPTH", "HEADS", "EMBED_DIM", "PATCH", "STRIDE") for x in clip(k, cfg)
    ]
    size, features = str(list(cfg.INPUT.SIZE_TRAIN)), str(cfg.MODEL.BACKBONE.FEAT_DIM)
    out = tmp_path / "whole.pth"
    words = ["convert", str(tmp_path / "checkpoint.pth.tar"), "--out", str(out), "--whole"]
    words += [
        "--config-file",
        "Market1501/cc_CLIP-B16",
        *pairs,
        "MODEL.BACKBONE.FEAT_DIM",
        features,
    ]
    assert cli.main([*words, "INPUT.SIZE_TRAIN", size, "INPUT.SIZE_TEST", size]) == 0
    assert "batch norm of 96 channels" in capsys.readouterr().out

    from fastreid.modeling import build_model

    model = build_model(cfg).eval()
    Checkpointer(model).load(str(out))
    images = torch.from_numpy(data["images"]).float()
    with torch.no_grad():
        found = model.heads(model.backbone(images))
    torch.testing.assert_close(found, torch.from_numpy(data["eval_bn"]), rtol=0, atol=2e-5)


def clip(key: str, cfg: Any) -> tuple[str, str]:
    """KEY VALUE of the tower's sizes."""
    return f"MODEL.BACKBONE.CLIP.{key}", str(cfg.MODEL.BACKBONE.CLIP[key])


def test_the_optimizer_gets_what_was_published() -> None:
    from fastreid.engine import DefaultTrainer
    from fastreid.modeling import build_model

    data, cfg = load("full_model.npz"), recipe("MODEL.DEVICE", "meta")
    with torch.device("meta"):
        model = build_model(cfg)
        optimizer, _ = DefaultTrainer.build_optimizer(cfg, model)
    published = dict(zip(data["param_name"].tolist(), data["trainable"].tolist(), strict=True))
    trained = {ours(name) for name, learns in published.items() if learns}
    trained -= {"bottleneck.weight", "bottleneck_proj.weight"}
    own = {name for name, p in model.named_parameters() if p.requires_grad}
    assert own == {*trained, "heads.bottleneck.0.weight"}
    assert sum(p.numel() for p in model.parameters()) == int(data["num_parameters"])
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    assert sum(p.numel() for p in learning) == int(data["num_trainable"])
    wanted = {"lr": 3.5e-4, "weight_decay": 5e-4, "momentum": 0.9, "nesterov": False}
    for key, value in wanted.items():
        assert {group[key] for group in optimizer.param_groups} == {value}


def test_the_rates_are_the_published_ones() -> None:
    from fastreid.engine import DefaultTrainer

    data, cfg = load("schedule.npz"), recipe()
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=cfg.SOLVER.BASE_LR)
    steps = cfg.CC.ITERS_PER_EPOCH
    schedule = DefaultTrainer.build_lr_scheduler(cfg, optimizer, steps)
    for epoch in range(cfg.SOLVER.MAX_EPOCH):
        for step in range(epoch * steps, (epoch + 1) * steps):
            rate = optimizer.param_groups[0]["lr"]
            assert rate == pytest.approx(float(data["lr"][epoch]), abs=1e-12), (epoch, step)
            optimizer.step()
            if step + 1 <= cfg.SOLVER.WARMUP_ITERS:  # as fastreid's hook moves the two
                schedule["warmup_sched"].step()
        if step + 1 > cfg.SOLVER.WARMUP_ITERS:
            schedule["lr_sched"].step()


def test_a_warmup_that_ends_within_an_epoch_is_refused() -> None:
    from fastreid.engine import DefaultTrainer

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(BadConfig, match="WARMUP_ITERS=2000 must be a multiple of the 300 steps"):
        DefaultTrainer.build_lr_scheduler(recipe(), optimizer, 300)


TINY = (
    *("MODEL.BACKBONE.NAME", "build_clip_backbone", "MODEL.BACKBONE.FEAT_DIM", 24),
    *CLIP_PAIRS,
    *("CC.COLLAPSE.EPS_BOUND", 0.5),
)


@pytest.mark.parametrize(
    "pairs, error, text",
    [
        (
            ("MODEL.BACKBONE.FEAT_DIM", 16),
            BadConfig,
            "FEAT_DIM=16 must be 24, the feat",
        ),
        (("MODEL.HEADS.POOL_LAYER", "GlobalAvgPool"), BadConfig, "Set it to Identity"),
        (("MODEL.BACKBONE.FROZEN", "('layer1',)"), BadConfig, "begins with 'layer1'. It has conv1"),
        (("MODEL.BACKBONE.PRETRAIN", True), MissingWeights, "are not downloaded by themselves"),
        (
            ("MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", "no.pth"),
            MissingWeights,
            "PRETRAIN_PATH='no.pth': no such file",
        ),
    ],
)
def test_what_cannot_work_is_said(
    pairs: tuple[object, ...], error: type[Exception], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        build(config(tmp_path, *TINY, *pairs))


def test_weights_of_any_wrapping_start_a_run_and_frozen_parameters_stay(tmp_path: Path) -> None:
    data = load("tower_w16_d12.npz")
    found = {f"module.{k[2:]}": torch.from_numpy(v) for k, v in data.items() if k[:2] == "w/"}
    torch.save({"state_dict": found}, tmp_path / "clip.pth")
    more = ("MODEL.BACKBONE.CLIP.DEPTH", 12, "MODEL.BACKBONE.CLIP.HEADS", 4)
    where = ("MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", tmp_path / "clip.pth")
    once = ("SOLVER.MAX_EPOCH", 1, "CC.ITERS_PER_EPOCH", 1, "DATASETS.TESTS", "()")
    frozen = ("MODEL.BACKBONE.FROZEN", "('conv1', 'transformer.resblocks.0')")
    trainer = build(config(tmp_path / "run", *TINY, *more, *where, *once, *frozen))
    given = {k.removeprefix("module.image_encoder."): v.float() for k, v in found.items()}
    start = {k: v.clone() for k, v in trainer.model.backbone.state_dict().items()}
    assert all(torch.equal(start[name], given[name]) for name in start)
    trainer.train()
    for name, weight in trainer.model.backbone.state_dict().items():
        frozen_name = name.startswith(("conv1", "transformer.resblocks.0."))
        assert torch.equal(weight, start[name]) == frozen_name, name
    assert np.isfinite(metrics(tmp_path / "run")[-1]["total_loss"])
