"""The MDIF head inside stock training with two sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from source_runs import JOINT, watched
from test_resume import same_end
from tiny_runs import build, config, plugin_at, train

pytestmark = pytest.mark.usefixtures("plugin")
MDIF: tuple[object, ...] = (
    *JOINT,
    "MODEL.HEADS.NAME",
    "MDIFHead",
    "MODEL.HEADS.MDIF.SCALE",
    0.5,
    "CC.SOURCES.LOSSES",
    '("CrossEntropyLoss",)',
)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Any:
    """(trainer, batches, losses) of a run with fusion."""
    output = tmp_path_factory.mktemp("mdif")
    with plugin_at(data_root), pytest.MonkeyPatch.context() as patch:
        return watched(output, patch, *MDIF)


def test_fused_features_have_losses_beside_the_host_s(fused: Any) -> None:
    trainer, _, losses = fused
    host = {"loss_memory_contrast", "loss_memory_contrast_source", "loss_cls_source"}
    assert set(losses[0]) == host | {f"{name}_fused" for name in host}
    fusion = trainer.model.heads.fusion
    assert fusion.counts.tolist() == [8, 8, 8]
    assert fusion.agents.any(1).all()
    state = trainer.model.state_dict()
    branches = [state[f"heads.fused_neck.0.{n}running_mean"] for n in ("", "sources.0.")]
    assert not torch.equal(*branches)


@pytest.fixture(scope="module")
def similar(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Any:
    """The trainer of a run with the fusion of ours."""
    output = tmp_path_factory.mktemp("similar")
    options = (*MDIF, "MODEL.HEADS.MDIF.FUSION", "similarity", "SOLVER.MAX_EPOCH", 1)
    with plugin_at(data_root):
        return train(config(output, *options, "DATASETS.TESTS", "()"))


def acts(model: Any) -> tuple[float, float]:
    """(the attention's gradient in the last step relative to `second`'s, share of the fused
    feature that changes when other images make up the agents), in training, with its neck."""
    fusion, ids = model.heads.fusion, torch.arange(24) // 8
    ratio = fusion.attention.weight.grad.abs().max() / fusion.second.weight.grad.abs().max()
    maps = torch.rand(24, 128, 2, 1, generator=torch.Generator().manual_seed(0))
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    found = []
    with torch.no_grad(), model.images_of(ids):
        for factor in (1, 100):
            fusion.attention.weight.mul_(factor)
            found.append(model.heads(maps, domains=ids)["fused"])
    model.load_state_dict(state)
    return float(ratio), float((found[1] - found[0]).norm() / found[0].norm())


def test_the_published_fusion_cancels_in_place_and_ours_acts(fused: Any, similar: Any) -> None:
    """The attention of the published form gets no gradient from any loss of the run."""
    ratio, change = acts(fused[0].model)
    assert ratio < 1e-4 and change < 1e-4
    ratio, change = acts(similar.model)
    assert ratio > 1e-3 and change > 1e-2


@pytest.mark.parametrize("run", ["fused", "similar"])
def test_evaluation_does_not_depend_on_the_other_images(run: str, fused: Any, similar: Any) -> None:
    model = (fused[0] if run == "fused" else similar).model.eval()
    pixels = torch.rand(6, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        whole = model({"images": pixels.clone()})
        for rows in ([2], [5, 0], [1, 1, 4, 3]):
            found = model({"images": pixels[rows]})
            torch.testing.assert_close(found, whole[rows], atol=1e-5, rtol=1e-5)
    assert whole.shape == (6, 128)


def test_the_host_s_features_are_there_to_evaluate_too(fused: Any) -> None:
    model = fused[0].model.eval()
    pixels = torch.rand(6, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        whole = model({"images": pixels.clone()})
        model.heads.evaluate = "host"
        host = model({"images": pixels.clone()})
        model.heads.evaluate = "fused"
    cosine = torch.nn.functional.cosine_similarity(whole, host)
    assert (cosine < 0.999).all()


def test_fusion_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same_end(tmp_path, monkeypatch, 3, *MDIF, "MODEL.HEADS.MDIF.EVALUATE", "host")


def test_faults_name_their_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"MODEL\.HEADS\.MDIF\.EVALUATE='both'"):
        build(config(tmp_path, *MDIF, "MODEL.HEADS.MDIF.EVALUATE", "both"))
    with pytest.raises(ValueError, match=r"MODEL\.HEADS\.EMBEDDING_DIM=64"):
        build(config(tmp_path, *MDIF, "MODEL.HEADS.EMBEDDING_DIM", 64))
