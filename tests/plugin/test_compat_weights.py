"""Shims of pretrained weights: cached files load, missing and unfitting ones are named."""

from __future__ import annotations

import argparse
import sys

import pytest
import torch
from compat_runs import config

from fastreid_cc.errors import MissingWeights, UnreadableFile

pytestmark = pytest.mark.usefixtures("plugin")
PRETRAIN = ("MODEL.BACKBONE.PRETRAIN", True)


@pytest.fixture
def without():
    from fastreid_cc.plugin.compat import disabled

    return disabled


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """An empty cache, no gdown and no network."""
    import urllib.request

    def refuse(*_, **__):
        raise urllib.request.URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "gdown", None)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)


def backbone(data_root, tmp_path, *extra):
    from fastreid.modeling.backbones import build_backbone

    return build_backbone(config(data_root, tmp_path, *extra))


def test_a_cached_file_loads_without_gdown(data_root, tmp_path, without):
    source = backbone(data_root, tmp_path)
    cache = tmp_path / "cache" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(source.state_dict(), cache / "osnet_x0_25_imagenet.pth")
    with without("load_cached_weights"), pytest.raises(ImportError, match="gdown"):
        backbone(data_root, tmp_path, *PRETRAIN)
    loaded = backbone(data_root, tmp_path, *PRETRAIN)
    for a, b in zip(source.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b)
    assert "gdown" not in sys.modules


@pytest.mark.parametrize(
    ("name", "depth", "file"),
    [
        ("osnet", "x0_25", "osnet_x0_25_imagenet.pth"),
        ("resnet", "18x", "resnet18-5c106cde.pth"),
        ("regnet", "800y", "RegNetY-800MF_dds_8gpu.pyth"),
        ("resnest", "50x", "resnest50-528c19ca.pth"),
    ],
)
def test_missing_weights_name_file_folder_and_keys(data_root, tmp_path, name, depth, file):
    with pytest.raises(MissingWeights) as error:
        backbone(
            data_root,
            tmp_path,
            *PRETRAIN,
            "MODEL.BACKBONE.NAME",
            f"build_{name}_backbone",
            "MODEL.BACKBONE.DEPTH",
            depth,
        )
    for part in (file, str(tmp_path / "cache"), "MODEL.BACKBONE.PRETRAIN_PATH"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("Market1501/cc_R50", "resnet50-19c8e357.pth"),
        ("Market1501/cc_R50-ibn", "resnet50_ibn_a-d9d0bb7b.pth"),
        ("Market1501/cc_R50 MODEL.BACKBONE.WITH_SE True", "no pretrained weights 'se_50x'"),
        ("Market1501/cc_R50 MODEL.BACKBONE.NAME build_resnest_backbone", "resnest50-528c19ca.pth"),
    ],
)
def test_a_training_without_its_weights_is_one_message_before_anything_is_built(
    data_root, tmp_path, monkeypatch, capfd, words, file
):
    """Found by a walk: a page of environment and config came before the message."""
    from fastreid_cc import __main__ as cli

    monkeypatch.chdir(tmp_path)
    tests = ("DATASETS.NAMES", "('SyntheticReID',)", "DATASETS.TESTS", "('SyntheticReID',)")
    assert cli.main(["train", "--config-file", *words.split(), *tests]) == 1
    out, err = capfd.readouterr()
    place = tmp_path / "cache"
    assert out == "" and len(err.splitlines()) <= 6 and "Traceback" not in err, out + err
    found = () if "no pretrained" in file else (f"no file {place}", "no network")
    for part in (file, *found, "PRETRAIN_PATH", "PRETRAIN False"):
        assert part in err, err
    assert not (tmp_path / "logs").exists()


def test_hub_weights_are_a_url_error_in_stock(data_root, tmp_path, without):
    resnest = ("MODEL.BACKBONE.NAME", "build_resnest_backbone", "MODEL.BACKBONE.DEPTH", "50x")
    with without("explain_missing_hub_weights"), pytest.raises(OSError, match="no network"):
        backbone(data_root, tmp_path, *PRETRAIN, *resnest)


@pytest.mark.parametrize(
    ("name", "depth", "message"),
    [
        ("mobilenetv2", "1.0x", "no pretrained weights to download"),
        ("regnet", "400x", "knows no pretrained weights '400x'"),
    ],
)
def test_backbones_without_published_weights_say_so(data_root, tmp_path, name, depth, message):
    with pytest.raises(MissingWeights, match=message):
        backbone(
            data_root,
            tmp_path,
            *PRETRAIN,
            "MODEL.BACKBONE.NAME",
            f"build_{name}_backbone",
            "MODEL.BACKBONE.DEPTH",
            depth,
        )


def test_a_damaged_cached_file_is_named(data_root, tmp_path):
    cache = tmp_path / "cache" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "osnet_x0_25_imagenet.pth").write_bytes(b"half a fi")
    with pytest.raises(MissingWeights, match="osnet_x0_25_imagenet.pth is damaged"):
        backbone(data_root, tmp_path, *PRETRAIN)


@pytest.mark.parametrize("wrap", ["bare", "checkpoint", "module", "arrays"])
def test_own_weights_load_in_any_wrapping(data_root, tmp_path, without, wrap):
    source = backbone(data_root, tmp_path).state_dict()
    content = {
        "bare": source,
        "checkpoint": {"model": {f"backbone.{k}": v for k, v in source.items()}, "epoch": 3},
        "module": {"state_dict": {f"module.{k}": v for k, v in source.items()}},
        "arrays": {"model": {k: v.numpy() for k, v in source.items()}},
    }[wrap]
    file = tmp_path / "own.pth"
    torch.save(content, file)
    path = (*PRETRAIN, "MODEL.BACKBONE.PRETRAIN_PATH", file)

    def loaded():
        try:
            state = backbone(data_root, tmp_path, *path).state_dict()
        except Exception:
            return False
        return all(torch.equal(state[k], v) for k, v in source.items())

    assert loaded()
    with without("read_own_weights_in_any_wrapping"):
        assert loaded() is (wrap == "bare")


def test_weights_that_do_not_fit_or_exist_are_named(data_root, tmp_path, without):
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    other = (*PRETRAIN, "MODEL.BACKBONE.PRETRAIN_PATH", tmp_path / "other.pth")
    with without("read_own_weights_in_any_wrapping"):
        backbone(data_root, tmp_path, *other)  # random weights, in silence
    with pytest.raises(MissingWeights, match=r"none of its 1 weights fits .*layer.weight"):
        backbone(data_root, tmp_path, *other)
    with pytest.raises(MissingWeights, match="PRETRAIN_PATH='nowhere.pth': no such file"):
        backbone(data_root, tmp_path, *PRETRAIN, "MODEL.BACKBONE.PRETRAIN_PATH", "nowhere.pth")


def test_weights_of_other_shapes_are_named(data_root, tmp_path, without):
    wide = ("MODEL.BACKBONE.DEPTH", "x0_5", "MODEL.BACKBONE.FEAT_DIM", 256)
    torch.save(backbone(data_root, tmp_path, *wide).state_dict(), tmp_path / "wide.pth")
    path = (*PRETRAIN, "MODEL.BACKBONE.PRETRAIN_PATH", tmp_path / "wide.pth")
    with pytest.raises(MissingWeights, match=r"(?s)DEPTH='x0_25': conv1.*\n.*fastreid_cc convert"):
        backbone(data_root, tmp_path, *path)
    with without("read_own_weights_in_any_wrapping"), pytest.raises(RuntimeError, match="mismatch"):
        backbone(data_root, tmp_path, *path)


def test_a_file_that_only_convert_reads_leads_to_it(data_root, tmp_path):
    (tmp_path / "own.safetensors").write_bytes(b"weights")
    torch.save({"teacher": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "dino.pth")
    for name in ("own.safetensors", "dino.pth"):
        path = (*PRETRAIN, "MODEL.BACKBONE.PRETRAIN_PATH", tmp_path / name)
        with pytest.raises(UnreadableFile, match=rf"(?s){name}.*fastreid_cc convert"):
            backbone(data_root, tmp_path, *path)


def test_weights_that_a_wrapped_file_lacks_are_told(data_root, tmp_path, caplog):
    """A MoCo file is read as it is, its other encoder left alone."""
    source = backbone(data_root, tmp_path).state_dict()
    moco = {f"module.encoder_q.{k}": v for k, v in source.items() if k != "conv5.conv.weight"}
    moco |= {f"module.encoder_k.{k}": v + 1 for k, v in source.items()}
    torch.save({"state_dict": moco}, tmp_path / "moco.pth")
    path = (*PRETRAIN, "MODEL.BACKBONE.PRETRAIN_PATH", tmp_path / "moco.pth")
    state = backbone(data_root, tmp_path, *path).state_dict()
    assert all(torch.equal(state[k], v) for k, v in source.items() if k != "conv5.conv.weight")
    assert "lacks 1 of 558 weights" in caplog.text and "conv5.conv.weight" in caplog.text
