"""Losses of the warm-up other than instance discrimination: AMDIM inside stock training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from source_runs import watched
from test_resume import same_end
from tiny_runs import build, config, digest, train

pytestmark = pytest.mark.usefixtures("plugin")
#: Two epochs of warm-up by AMDIM on maps of OSNet, one of episodes on pseudo-labels.
AMDIM: tuple[object, ...] = (
    "CC.WARMUP.EPOCHS",
    2,
    "CC.WARMUP.VIEWS",
    2,
    "CC.WARMUP.LOSSES",
    '("AMDIM",)',
    "MODEL.LOSSES.NAME",
    '("Prototypes",)',
    "MODEL.LOSSES.AMDIM.FEATURE_SIZE",
    128,
    "MODEL.LOSSES.AMDIM.FINE_LAYER",
    "conv3",
    "MODEL.LOSSES.AMDIM.FINE_CHANNELS",
    96,
    "MODEL.LOSSES.AMDIM.COARSE_LAYER",
    "conv5",
    "MODEL.LOSSES.AMDIM.COARSE_CHANNELS",
    128,
    "MODEL.LOSSES.AMDIM.FINE_ROWS",
    4,
    "MODEL.LOSSES.AMDIM.FINE_COLUMNS",
    2,
    "SOLVER.MAX_EPOCH",
    3,
)


def heads(model: Any) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if k.startswith("warmup_losses.")}


@pytest.mark.parametrize("has_amp", [False, True], ids=["float32", "bfloat16"])
def test_amdim_trains_backbone_and_heads_by_views_and_maps_then_episodes_take_over(
    has_amp: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.trainer import pseudo_label_hook

    extracted: list[int] = []
    extract = pseudo_label_hook.extract_features
    monkeypatch.setattr(
        pseudo_label_hook,
        "extract_features",
        lambda *args, **kwargs: extracted.append(1) or extract(*args, **kwargs),
    )
    options = (*AMDIM, "SOLVER.AMP.ENABLED", has_amp, "CC.EVAL_BEFORE", False)
    start = build(config(tmp_path / "start", *options)).model
    trainer, batches, losses = watched(tmp_path / "run", monkeypatch, *options)
    assert [set(found) for found in losses] == [{"loss_amdim"}] * 4 + [{"loss_prototypes"}] * 2
    assert batches[0]["views"].tolist() == [0, 1] * 4 and "views" not in batches[4]
    assert batches[0]["targets"].tolist() == batches[0]["indices"].tolist()
    assert (batches[0]["targets"][::2] == batches[0]["targets"][1::2]).all()
    assert len(extracted) == 1  # for the labels; the warm-up needs no memory
    before, after = heads(start), heads(trainer.model)
    assert len(before) == 6 and not any(torch.equal(before[k], after[k]) for k in before)
    assert trainer.model.step.memory is not None


def test_the_gradient_of_amdim_reaches_the_backbone_by_both_maps_and_the_feature(
    tmp_path: Path,
) -> None:
    trainer = build(config(tmp_path, *AMDIM))
    model, hook = trainer.model.train(), trainer._hooks[0]
    model.step.start_stage(None, is_warm_up=True)
    loss = model.warmup_losses["AMDIM"]
    inputs = {
        "images": torch.rand(8, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255,
        "targets": torch.arange(8) // 2,
        "views": torch.arange(8) % 2,
    }
    seen: dict[str, torch.Tensor] = {}
    vectors = type(loss)._vectors

    def watch(self: Any, batch: Any) -> Any:
        for name in ("features", "fine_map", "coarse_map"):
            seen[name] = getattr(batch, name)
            seen[name].retain_grad()
        return vectors(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(loss), "_vectors", watch)
        sum(model(inputs).values()).backward()
    assert seen["fine_map"].shape[:2] == (8, 96) and seen["coarse_map"].shape[:2] == (8, 128)
    assert all(value.grad.any() for value in seen.values())
    assert not list(model.backbone.conv3[-1]._forward_hooks)
    assert hook.memory is None and model.step.last_batch is None


@pytest.mark.parametrize("iteration", [1, 3])
def test_a_warm_up_by_amdim_resumes_to_the_same_bytes(
    iteration: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_end(tmp_path, monkeypatch, iteration, *AMDIM)


def test_each_of_two_networks_has_its_heads(tmp_path: Path) -> None:
    extra = ("MODEL.META_ARCHITECTURE", "MutualContrast", "CC.TEACHER.ENABLED", True)
    model = train(config(tmp_path, *AMDIM, *extra, "SOLVER.MAX_EPOCH", 2)).model
    own, other = heads(model), heads(model.peer)
    assert own.keys() == other.keys() and digest(own) != digest(other)


def test_instance_discrimination_and_amdim_work_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("CC.WARMUP.LOSSES", '("MemoryContrast","AMDIM")', "SOLVER.MAX_EPOCH", 2)
    scale = ("MODEL.LOSSES.AMDIM.SCALE", 0.5)
    _, _, full = watched(tmp_path / "a", monkeypatch, *AMDIM, *both)
    trainer, _, half = watched(tmp_path / "b", monkeypatch, *AMDIM, *both, *scale)
    assert set(half[0]) == {"loss_memory_contrast", "loss_amdim"}
    assert half[0]["loss_amdim"] == pytest.approx(full[0]["loss_amdim"] / 2, rel=1e-5)
    assert trainer._hooks[0].memory.rows.shape == (48, 128)


def test_a_pairwise_loss_in_the_warm_up_tells_views_of_an_image_apart_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SupCon there is SimCLR, with no memory to read."""
    options = ("CC.WARMUP.LOSSES", '("SupCon",)', "CC.WARMUP.EPOCHS", 3, "SOLVER.MAX_EPOCH", 3)
    trainer, batches, losses = watched(tmp_path, monkeypatch, *AMDIM, *options)
    assert [set(found) for found in losses] == [{"loss_sup_con"}] * 6
    assert trainer.model.step.memory is None and trainer._hooks[0].memory is None
    assert len(batches[0]["targets"].unique()) == 4


def test_every_parameter_has_a_gradient_in_both_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DistributedDataParallel asks for it: heads after the warm-up, the neck that none sees."""
    from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast

    losses, unused = ClusterContrast.losses, []

    def watch(self: Any, outputs: Any, batch: Any, step: Any) -> Any:
        found = losses(self, outputs, batch, step)
        named = {name: p for name, p in self.named_parameters() if p.requires_grad}
        total = sum(found.values())
        gradients = torch.autograd.grad(
            total, list(named.values()), retain_graph=True, allow_unused=True
        )
        unused.append([n for n, g in zip(named, gradients, strict=True) if g is None])
        return found

    monkeypatch.setattr(ClusterContrast, "losses", watch)
    train(config(tmp_path, *AMDIM, "MODEL.HEADS.NECK_FEAT", "before"))
    assert unused == [[]] * 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("CC.WARMUP.VIEWS", 1), r"AMDIM in CC\.WARMUP\.LOSSES compares views; .*VIEWS=1, set 2"),
        (("CC.WARMUP.LOSSES", "()"), r"CC\.WARMUP\.LOSSES holds no loss"),
        (("CC.WARMUP.LOSSES", '("TripletLoss",)'), r"holds TripletLoss, fastreid's own"),
        (("CC.WARMUP.LOSSES", '("AMDIN",)'), r"Did you mean 'AMDIM'"),
        (("CC.WARMUP.LOSSES", '("SoftContrast",)'), r"SoftContrast in .* learn from a teacher"),
        (("MODEL.LOSSES.NAME", '("AMDIM",)'), r"MODEL\.LOSSES\.NAME holds AMDIM, which compares"),
        (("MODEL.LOSSES.AMDIM.FEATURE_SIZE", 64), r"FEATURE_SIZE=64 must be .* 128"),
        (("MODEL.LOSSES.AMDIM.FINE_LAYER", "layer2"), r"MODEL\.LOSSES\.AMDIM reads .*'layer2'"),
        (("MODEL.META_ARCHITECTURE", "ClusterContrastMGN"), r"AMDIM .* needs MODEL\.META_ARCH"),
        (
            ("CC.ENABLED", False, "MODEL.LOSSES.NAME", '("AMDIM",)'),
            r"MODEL\.LOSSES\.NAME holds AMDIM",
        ),
        (
            ("CC.ENABLED", False, "MODEL.LOSSES.Prototypes.SHOTS", 1),
            r"Prototypes\.SHOTS=1 parts images by their place",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_a_warm_up_that_cannot_work_is_refused_by_its_key(
    change: tuple[object, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        build(config(tmp_path, *AMDIM, *change))
