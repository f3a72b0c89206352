"""A checkpoint trained without labels is a stock fastreid checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import ROOT, config, environment, train

pytestmark = pytest.mark.usefixtures("plugin")

STOCK = Path(__file__).with_name("stock_only.py")


def test_stock_fastreid_loads_the_checkpoint_and_gives_the_same_features(
    tmp_path: Path, data_root: Path
) -> None:
    """In a process without the plug-in, by Baseline, EmbeddingHead and DefaultPredictor."""
    model = train(config(tmp_path)).model.eval()
    pixels = torch.rand(6, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    torch.save(pixels, tmp_path / "pixels.pth")
    with torch.no_grad():
        expected = model({"images": pixels.clone()})
    assert expected.std(dim=0).max() > 1e-3  # the images are told apart
    done = subprocess.run(
        [
            sys.executable,
            str(STOCK),
            str(tmp_path / "model_final.pth"),
            str(tmp_path / "pixels.pth"),
            str(tmp_path / "found.pth"),
        ],
        env={**environment(data_root), "PYTHONPATH": ""},
        cwd=tmp_path,
        timeout=600,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    answer = torch.load(tmp_path / "found.pth")
    assert answer["foreign"] == []
    assert set(answer["features"]) == {"model 0", "model 5", "predictor 0", "predictor 5"}
    for name, features in answer["features"].items():
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5, msg=name)


def test_the_checkpoint_holds_no_name_that_stock_lacks(tmp_path: Path) -> None:
    """Apart from a classifier, names and shapes are those of Baseline with EmbeddingHead."""
    from fastreid.modeling import build_model

    train(config(tmp_path, "SOLVER.MAX_EPOCH", 1))
    stock = build_model(
        config(
            tmp_path,
            "CC.ENABLED",
            False,
            "MODEL.META_ARCHITECTURE",
            "Baseline",
            "MODEL.HEADS.NAME",
            "EmbeddingHead",
            "MODEL.LOSSES.NAME",
            '("TripletLoss",)',
            "MODEL.HEADS.NUM_CLASSES",
            5,
        )
    ).state_dict()
    state = torch.load(tmp_path / "model_final.pth")["model"]
    assert set(stock) - set(state) == {"heads.weight"}
    assert set(state) <= set(stock)
    assert all(state[name].shape == stock[name].shape for name in state)


def test_the_whole_checkpoint_is_tensors_and_plain_values(tmp_path: Path) -> None:
    """So that torch loads it with weights_only, with no class of ours and no numpy object."""
    options = ("CC.MEMORY.NAME", "hybrid", "CC.LABELS.PERIOD", 2)
    train(config(tmp_path, *options))
    state = torch.load(tmp_path / "model_0000.pth", weights_only=True)
    assert {"model", "optimizer", "cc", "epoch"} <= set(state)
    assert state["cc"]["version"] == 1
    assert str(ROOT) not in str(state["cc"])
