"""Shims of model building: device, RegNet and EfficientNet, Flatten."""

from __future__ import annotations

import pytest
import torch
from compat_runs import build, config

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def without():
    from fastreid_cc.plugin.compat import disabled

    return disabled


def model_of(data_root, tmp_path, *extra):
    from fastreid.modeling import build_model

    return build_model(config(data_root, tmp_path, *extra))


def backbone(data_root, tmp_path, name, depth):
    return model_of(
        data_root, tmp_path, "MODEL.BACKBONE.NAME", name, "MODEL.BACKBONE.DEPTH", depth
    ).backbone


@pytest.mark.skipif(torch.cuda.is_available(), reason="stock runs with CUDA")
def test_without_cuda_the_default_device_is_the_cpu(data_root, tmp_path, without, caplog):
    with without("build_on_the_cpu_without_cuda"), pytest.raises((RuntimeError, AssertionError)):
        model_of(data_root, tmp_path, "MODEL.DEVICE", "cuda")
    model = model_of(data_root, tmp_path, "MODEL.DEVICE", "cuda")
    assert model.device.type == "cpu"
    assert "MODEL.DEVICE" in caplog.text


@pytest.mark.parametrize(
    ("name", "depth"), [("build_regnet_backbone", "200x"), ("build_effnet_backbone", "b0")]
)
def test_regnets_build_from_any_folder(data_root, tmp_path, without, monkeypatch, name, depth):
    monkeypatch.chdir(tmp_path)
    with without("build_regnets_from_anywhere"), pytest.raises(FileNotFoundError):
        backbone(data_root, tmp_path, name, depth)
    assert sum(p.numel() for p in backbone(data_root, tmp_path, name, depth).parameters()) > 1e6


def test_a_regnetx_built_after_a_regnety_has_no_squeeze_and_excite(
    data_root, tmp_path, without, monkeypatch
):
    from pathlib import Path

    import fastreid

    def blocks():
        backbone(data_root, tmp_path, "build_regnet_backbone", "200y")
        x = backbone(data_root, tmp_path, "build_regnet_backbone", "200x")
        return sum(type(m).__name__ == "SE" for m in x.modules())

    assert blocks() == 0
    monkeypatch.chdir(Path(fastreid.__file__).parents[1])  # where stock finds its files
    with without("build_regnets_from_anywhere"):
        assert blocks() > 0


def test_flatten_names_the_size_it_needs(data_root, tmp_path, without):
    flatten = (
        "MODEL.HEADS.POOL_LAYER",
        "Flatten",
        "MODEL.HEADS.WITH_BNNECK",
        True,
        "SOLVER.MAX_EPOCH",
        1,
    )
    with without("explain_flatten"), pytest.raises(RuntimeError) as stock:
        build(data_root, tmp_path, *flatten).train()
    assert "FEAT_DIM" not in str(stock.value)
    with pytest.raises(ValueError, match=r"POOL_LAYER='Flatten'.*MODEL.BACKBONE.FEAT_DIM=1024"):
        build(data_root, tmp_path, *flatten).train()
    build(data_root, tmp_path, *flatten, "MODEL.BACKBONE.FEAT_DIM", 1024).train()
