"""`python -m fastreid_cc convert`: files in the layouts of other projects become plain weights."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import payload
import pytest
import torch
from torch import Tensor, nn

from fastreid_cc import __main__ as cli

pytestmark = pytest.mark.usefixtures("plugin")
BACKBONES = {"osnet": ("build_osnet_backbone", "x0_25"), "resnet": ("build_resnet_backbone", "18x")}
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_CC_IMPORT", "")
    monkeypatch.chdir(tmp_path)
    for kind, (name, depth) in BACKBONES.items():
        node = f"{{NAME: {name}, DEPTH: {depth}, PRETRAIN: True, PRETRAIN_PATH: out.pth}}"
        Path(f"{kind}.yml").write_text(f"MODEL: {{DEVICE: cpu, BACKBONE: {node}}}\n")


def backbone(kind: str, *pairs: object) -> nn.Module:
    from fastreid.config import get_cfg
    from fastreid.modeling.backbones import build_backbone

    cfg = get_cfg()
    cfg.merge_from_file(f"{kind}.yml")
    cfg.merge_from_list(list(map(str, pairs)))
    return build_backbone(cfg)


@pytest.fixture(scope="module")
def states(plugin_for_module: None) -> dict[str, State]:
    """Random weights of each backbone, drawn once."""
    from fastreid.config import get_cfg
    from fastreid.modeling.backbones import build_backbone

    found = {}
    for kind, (name, depth) in BACKBONES.items():
        cfg = get_cfg()
        cfg.merge_from_list(["MODEL.BACKBONE.NAME", name, "MODEL.BACKBONE.DEPTH", depth])
        found[kind] = build_backbone(cfg).state_dict()
    return found


@pytest.fixture(scope="module")
def plugin_for_module() -> None:
    importlib.import_module("fastreid_cc.plugin")


def put(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": weight for name, weight in state.items()}


def other(state: State) -> State:
    return {name: weight + 1 for name, weight in state.items()}


def numbered(state: State) -> State:
    """As `nn.Sequential(conv1, bn1, maxpool, layer1, ...)` names them."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 3, "layer2": 4, "layer3": 5, "layer4": 6}
    parts = {name: name.split(".", 1) for name in state}
    return {f"{numbers[parts[n][0]]}.{parts[n][1]}": w for n, w in state.items()}


HEAD = {"fc.weight": torch.ones(9, 8), "fc.bias": torch.ones(9)}
CLASSIFIER = {"classifier.weight": torch.ones(9, 8), "fc.1.running_mean": torch.ones(8)}


def layouts(kind: str, state: State) -> dict[str, Any]:
    """Layout -> what its file holds; of the larger network only what concerns ResNets."""
    if kind == "resnet":
        sequential = put("module.base.", numbered(state)) | put("module.feat_bn.", HEAD)
        return {
            "torchvision": {k: v for k, v in state.items() if "num_batches" not in k} | HEAD,
            "cluster contrast": {"state_dict": sequential},
        }
    moco = put("encoder_q.", state) | put("encoder_k.", other(state)) | {"queue": torch.ones(8, 9)}
    v3 = put("base_encoder.", state | HEAD) | put("momentum_encoder.", other(state))
    students = put("module.backbone.", other(state))
    dino = {"student": students, "teacher": put("backbone.", state) | put("head.mlp.", HEAD)}
    return {
        "bare": state,
        "torchreid": {"state_dict": put("module.", state | CLASSIFIER), "epoch": 9, "rank1": 0.5},
        "moco": {"arch": "x", "epoch": 9, "state_dict": put("module.", moco), "optimizer": {}},
        "moco v3": {"state_dict": put("module.", v3)},
        "dino": {**dino, "args": argparse.Namespace(lr=0.1), "epoch": 9},
        "fastreid": {"model": put("backbone.", state) | put("heads.", HEAD), "epoch": 9},
        "compiled": {"model": put("_orig_mod.", state | HEAD)},
    }


def run(*words: str) -> int:
    return cli.main(["convert", *words])


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_layout_becomes_the_same_plain_weights(
    kind: str, states: dict[str, State], capsys: pytest.CaptureFixture[str]
) -> None:
    state = states[kind]
    for layout, content in layouts(kind, state).items():
        torch.save(content, "in.pth")
        with_config = layout in ("moco", "dino", "torchvision")
        config = ("--config-file", f"{kind}.yml") if with_config else ()
        assert run("in.pth", "--out", "out.pth", "--overwrite", *config) == 0, layout
        printed = capsys.readouterr().out
        assert "missing" not in printed and "PRETRAIN_PATH out.pth" in printed
        found = torch.load("out.pth", weights_only=True)
        assert set(found) == (set(content) - set(HEAD) if layout == "torchvision" else set(state))
        assert all(torch.equal(found[name], state[name]) for name in found), layout
        assert ("dropped" in printed) == (layout != "bare"), printed
    loaded = backbone(kind).state_dict()  # what the file is for
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_what_was_found_is_said(
    states: dict[str, State], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(layouts("osnet", states["osnet"])["torchreid"], "in.pth")
    assert run("in.pth", "--out", "out.pth", "--config-file", "osnet.yml") == 0
    out = capsys.readouterr().out
    assert "(state_dict > module.)" in out
    assert "dropped  2 that the config's backbone has not: classifier.weight, fc.1.runn" in out


def test_a_file_of_another_backbone_is_refused_and_nothing_written(
    states: dict[str, State], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(states["resnet"], "in.pth")
    words = ("in.pth", "--out", "out.pth", "--config-file")
    assert run(*words, "osnet.yml") == 1
    assert "none of the weights (conv1.weight, " in capsys.readouterr().err
    assert run(*words, "resnet.yml", "MODEL.BACKBONE.WITH_IBN", "True") == 1
    told = capsys.readouterr()
    assert "of the backbone's: layer1.0.bn1.IN.weight" in told.out
    assert "weights of MODEL.BACKBONE.NAME build_resnet_backbone DEPTH 18x WITH_IBN" in told.err
    assert not Path("out.pth").exists()
    assert run(*words, "resnet.yml", "MODEL.BACKBONE.WITH_IBN", "True", "--partial") == 0
    assert set(torch.load("out.pth", weights_only=True)) < set(states["resnet"])


def test_position_embeddings_of_another_size_are_left_to_the_backbone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreign = importlib.import_module("fastreid_cc.plugin.offline.foreign_weights")
    vit = nn.Module()
    vit.pos_embed, vit.norm = nn.Parameter(torch.zeros(1, 129, 8)), nn.LayerNorm(8)
    monkeypatch.setattr(foreign, "build_backbone", lambda _: vit)
    monkeypatch.setattr(foreign, "with_values", lambda *_: None)
    weights = {"pos_embed": torch.ones(1, 197, 8), "norm.weight": torch.ones(4)}
    found = foreign.fit(weights, None)
    assert list(found.weights) == ["pos_embed"] and found.missing == ("norm.bias",)
    assert found.misshapen == {"norm.weight": ((4,), (8,))}


@pytest.mark.parametrize(
    "kind", ["beside", "as_model", "as_weight", "alone", "old_format", "pickle"]
)
def test_a_file_with_more_than_tensors_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = payload.checkpoints(tmp_path / "c", tmp_path / "ran", {"w": torch.zeros(2, 2)})[kind]
    assert run(str(path), "--out", "out.pth") == 1
    assert path.name in capsys.readouterr().err
    assert not (tmp_path / "ran").exists() and not Path("out.pth").exists()


def test_safetensors_are_read_where_the_package_is(
    states: dict[str, State],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("in.safetensors").write_bytes(b"weights")
    words = ("in.safetensors", "--out", "out.pth", "--config-file", "osnet.yml")
    stock = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.util, "find_spec", lambda n, *a: None if n == "safetensors" else stock(n, *a)
        )
        assert run(*words) == 1
    assert "pip install safetensors" in capsys.readouterr().err
    package, reader = types.ModuleType("safetensors"), types.ModuleType("safetensors.torch")
    package.__spec__ = importlib.util.spec_from_loader("safetensors", loader=None)
    reader.load_file = lambda path: put("backbone.", states["osnet"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "safetensors", package)
    monkeypatch.setitem(sys.modules, "safetensors.torch", reader)
    assert run(*words) == 0
    assert set(torch.load("out.pth", weights_only=True)) == set(states["osnet"])


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("gone.pth", "--out", "x.pth"), 2, "gone.pth: no such file"),
        (("in.pth", "--out", "no/x.pth"), 2, "there is no folder no"),
        (("in.pth", "--out", "in.pth"), 2, "in.pth is there already; --overwrite replaces it"),
        (("in.pth",), 2, "--out"),
        (("in.pth", "--out", "x.pth", "MODEL.BACKBONE.DEPTH", "18x"), 2, "name one"),
        (("in.pth", "--out", "x.pth", "--config-file", "cc_R5"), 2, "Did you mean "),
        (("in.pth", "--out", "x.pth"), 1, "in.pth holds no weights of a backbone"),
        (("torn.pth", "--out", "x.pth"), 1, "torn.pth is damaged"),
    ],
)
def test_a_mistake_is_one_message(
    words: tuple[str, ...], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": HEAD, "optimizer": {"state": {}}}, "in.pth")
    Path("torn.pth").write_bytes(b"half a fi")
    try:
        found = run(*words)
    except SystemExit as ended:
        found = int(ended.code or 0)
    captured = capsys.readouterr()
    assert found == status and told in captured.err, captured.err
    assert len(captured.err.splitlines()) <= 3 and captured.out == "" and not Path("x.pth").exists()


def test_of_torchscript_archives_only_the_published_ones_are_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import hashlib

    from fastreid_cc.networks.clip_tower import ClipTower
    from fastreid_cc.plugin.offline import foreign_weights

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = ClipTower((16, 16), **sizes).half()
            self.logit_scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.visual.proj.sum() * self.logit_scale

    sizes = {"width": 16, "depth": 2, "heads": 2, "embed_dim": 8, "patch": 8, "stride": 8}
    clip = Clip()
    torch.jit.trace(clip, torch.zeros(1)).save("ViT.pt")
    Path("clip.yml").write_text(
        "MODEL: {DEVICE: cpu, BACKBONE: {NAME: build_clip_backbone, FEAT_DIM: 24, CLIP: {WIDTH: 16,"
        " DEPTH: 2, HEADS: 2, EMBED_DIM: 8, PATCH: 8, STRIDE: 8}}, HEADS: {POOL_LAYER: Identity}}\n"
        "INPUT: {SIZE_TRAIN: [32, 16]}\n"
    )
    words = ["convert", "ViT.pt", "--out", "out.pth", "--config-file", "clip.yml"]
    assert cli.main(words) == 1
    assert "is a TorchScript archive, which holds code" in capsys.readouterr().err
    digest = hashlib.sha256(Path("ViT.pt").read_bytes()).hexdigest()
    monkeypatch.setitem(foreign_weights.OPENAI, digest, "a test's")
    assert cli.main(words) == 0, capsys.readouterr().err
    written = torch.load("out.pth")
    assert torch.equal(written["proj"], clip.visual.proj) and "logit_scale" not in written
    assert written.keys() == clip.visual.state_dict().keys()
