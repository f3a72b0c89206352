"""Nothing that is read can run code, no name acts where it is shown, no path leaves the output."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import numpy as np
import payload
import pytest
import torch
from PIL import Image
from tiny_runs import config

from fastreid_cc import __main__ as cli
from fastreid_cc.errors import ClearError, MissingWeights, UnreadableFile

PACKAGE = Path(cli.__file__).parent
pytestmark = pytest.mark.usefixtures("plugin")
PRETRAIN = ("MODEL.BACKBONE.PRETRAIN", True)


@pytest.fixture
def marker(tmp_path):
    """The folder that a payload would make; no test may leave it behind."""
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists(), "a payload ran"


def test_the_payloads_do_run_where_nobody_takes_care(tmp_path):
    """So that the tests below can fail."""
    marker = tmp_path / "x"
    for path in payload.checkpoints(tmp_path / "c", marker, {}).values():
        if path.name != "pickle.pth":
            torch.load(path, weights_only=False)
            marker.rmdir()
    for path in payload.arrays(tmp_path / "a", marker).values():
        found = np.load(path, allow_pickle=True)
        if path.suffix == ".npz":
            found["labels"]
        marker.rmdir()
    import yaml

    yaml.unsafe_load(payload.YAMLS[0].format(marker=marker))
    marker.rmdir()


# ---- checkpoints and weights ------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["beside", "as_model", "as_weight", "alone", "old_format", "pickle"]
)
def test_checkpoints_run_nothing(kind, tmp_path, marker):
    """By fastreid's own Checkpointer, as a file to start from, to resume from and to pretrain."""
    from fastreid.modeling.backbones import build_backbone
    from fastreid.utils.checkpoint import Checkpointer

    path = payload.checkpoints(tmp_path / "out", marker, {"weight": torch.zeros(2, 2)})[kind]
    with pytest.raises(UnreadableFile, match=path.name):
        Checkpointer(torch.nn.Linear(2, 2)).load(str(path))
    for other in (tmp_path / "out").glob("*.pth"):
        if other != path:
            other.unlink()
    (tmp_path / "out" / "last_checkpoint").write_text(path.name)
    keeper = Checkpointer(torch.nn.Linear(2, 2), str(tmp_path / "out"))
    if keeper.has_checkpoint():
        with pytest.raises(UnreadableFile, match=path.name):
            keeper.resume_or_load("", resume=True)
    with pytest.raises(UnreadableFile, match=path.name):
        build_backbone(config(tmp_path, *PRETRAIN, "MODEL.BACKBONE.PRETRAIN_PATH", path))


@pytest.mark.parametrize(
    ("family", "depth", "file"),
    [
        ("resnet", "18x", "checkpoints/resnet18-5c106cde.pth"),
        ("resnext", "101x", "checkpoints/resnext101_ibn_a-6ace051d.pth"),
        ("osnet", "x0_25", "checkpoints/osnet_x0_25_imagenet.pth"),
        ("regnet", "800y", "checkpoints/RegNetY-800MF_dds_8gpu.pyth"),
        ("effnet", "b0", "checkpoints/EN-B0_dds_8gpu.pyth"),
        ("resnest", "50x", "hub/checkpoints/resnest50-528c19ca.pth"),
        ("mobilenetv3", "Small", "hub/checkpoints/mobilenet_v3_small-047dcff4.pth"),
    ],
)
def test_cached_weights_run_nothing(family, depth, file, tmp_path, marker, monkeypatch):
    from fastreid.modeling.backbones import build_backbone

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / "torch" / file
    path.parent.mkdir(parents=True)
    torch.save({"model_state": payload.Payload(marker)}, path)
    pairs = [
        *PRETRAIN,
        "MODEL.BACKBONE.NAME",
        f"build_{family}_backbone",
        "MODEL.BACKBONE.DEPTH",
        depth,
    ]
    if family == "resnext":
        pairs += ["MODEL.BACKBONE.WITH_IBN", True]
    with pytest.raises(MissingWeights, match=path.name):
        build_backbone(config(tmp_path, *pairs))


def test_a_tag_cannot_name_a_file_elsewhere(tmp_path, caplog):
    from fastreid.utils.checkpoint import Checkpointer

    keeper = Checkpointer(torch.nn.Linear(2, 2), str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    keeper.save("model_0001")
    torch.save({"model": {}}, tmp_path / "other.pth")
    for name in ("../other.pth", str(tmp_path / "other.pth"), "\0", "\x1b[2J", b"\xff\xfe", "."):
        name = name if isinstance(name, bytes) else name.encode()
        (tmp_path / "out" / "last_checkpoint").write_bytes(name)
        assert keeper.get_checkpoint_file() == str(tmp_path / "out" / "model_0001.pth")
    assert "\x1b" not in caplog.text


# ---- label files and configs ------------------------------------------------------------------


def test_feature_and_camera_files_run_nothing(tmp_path, marker, capsys):
    np.save(tmp_path / "fine.npy", np.eye(8, dtype=np.float32))
    for path in payload.arrays(tmp_path / "in", marker).values():
        out = str(tmp_path / "o.npz")
        assert cli.main(["label", str(path), "--out", out]) == 2
        assert (
            cli.main(["label", str(tmp_path / "fine.npy"), "--cams", str(path), "--out", out]) == 2
        )
    assert not (tmp_path / "o.npz").exists()
    assert capsys.readouterr().err.count("\n") == 6


@pytest.mark.parametrize("text", payload.YAMLS)
@pytest.mark.parametrize("command", ["export", "train", "base"])
def test_configs_run_nothing(text, command, tmp_path, marker, capsys):
    from fastreid.config import get_cfg

    bad = tmp_path / "x.yml"
    bad.write_text(text.format(marker=marker))
    if command == "export":
        assert cli.main(["export", str(bad), "--untrained", "--out", str(tmp_path / "o")]) == 2
        assert "x.yml" in capsys.readouterr().err
        return
    if command == "base":
        (tmp_path / "y.yml").write_text("_BASE_: x.yml\n")
    with pytest.raises(ClearError, match=r"x\.yml"):
        get_cfg().merge_from_file(
            str(tmp_path / ("y.yml" if command == "base" else "x.yml")), allow_unsafe=True
        )


def test_postscript_in_an_image_starts_no_program(tmp_path, marker, monkeypatch):
    """A `gs` on the PATH that makes the folder stands for Ghostscript."""
    from fastreid.data.data_utils import read_image

    from fastreid_cc.data.checks import fault
    from fastreid_cc.plugin.compat import disabled

    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nmkdir -p {marker}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    image = tmp_path / "x.jpg"
    image.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n9 9 moveto\n")
    assert "cannot identify" in fault(str(image))
    with pytest.raises(OSError, match="Ghostscript"):
        read_image(str(image))
    assert not marker.exists()
    with disabled("never_start_ghostscript"), pytest.raises(Exception):  # noqa: B017
        read_image(str(image))
    assert marker.exists()  # stock starts it
    marker.rmdir()


# ---- names ------------------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A finished run whose images have hostile names, and the names."""
    from fastreid.config import get_cfg

    monkeypatch.chdir(tmp_path)
    images = tmp_path / "images"
    (images / "sub\n\x1b[31m").mkdir(parents=True)
    made = []
    for i, name in enumerate(payload.NAMES):
        path = images / (name if i % 3 else f"sub\n\x1b[31m/{name}")
        Image.new("RGB", (8, 16), (i, 0, 0)).save(path, "JPEG")
        made.append(str(path))
    cfg = get_cfg()
    cfg.merge_from_file("fastreid_cc://OwnImages/cc_osnet_x0_25.yml")
    cfg.merge_from_list(["CC.FOLDER.ROOT", str(images), "CC.SEED", "3"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    labels = torch.arange(len(made)) // 3 - 1
    entry = {"version": 1, "labels": labels, "eps": 0.5, "labeler": {}}
    torch.save({"model": {}, "cc": entry}, tmp_path / "run" / "model_final.pth")
    (tmp_path / "run" / "last_checkpoint").write_text("model_final.pth")
    return tmp_path, sorted(made)


def test_hostile_names_stay_names(hostile, marker, capsys):
    folder, made = hostile
    before = {path for path in folder.rglob("*")}
    assert cli.main(["clusters", str(folder / "run")]) == 0
    out = folder / "run" / "clusters"
    new = {path for path in folder.rglob("*")} - before
    assert all(path == out or out in path.parents for path in new)
    text = (out / "clusters.csv").read_bytes().decode("utf-8")
    assert text.count("\n") == len(made) + 1
    assert all(c.isprintable() or c == "\n" for c in text)
    rows = list(csv.reader(text.splitlines()))[1:]
    assert all(row[0].startswith("/") for row in rows)  # no cell begins with = + - @
    read = [row[0].encode("latin1", "backslashreplace").decode("unicode_escape") for row in rows]
    assert sorted(read) == made  # and each name can be read back
    links = list(out.glob("*/*"))
    assert len(links) == len(made) and all(path.exists() for path in links)
    assert all(set(path.name) <= SAFE and len(path.name) < 100 for path in links)
    assert "\x1b" not in capsys.readouterr().out


SAFE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_unreadable_images_with_hostile_names_are_reported_harmlessly(tmp_path, caplog):
    from fastreid_cc.data.checks import drop_bad

    paths = []
    for name in payload.NAMES:
        (tmp_path / name).write_bytes(b"no image")
        paths.append(str(tmp_path / name))
    assert drop_bad(paths, 1.0, "KEY", tmp_path) == set()
    assert "\x1b" not in caplog.text and "\u202e" not in caplog.text
    caplog.text.encode("utf-8")  # no half characters, which a log file refuses
    with pytest.raises(ValueError, match="cannot be read") as error:
        drop_bad(paths, 0.1, "KEY", tmp_path)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", ["../up.pth", "/etc/passwd", "a/../../up.pth"])
@pytest.mark.parametrize("command", ["export", "clusters"])
def test_a_checkpoint_outside_the_run_is_refused(hostile, name, command, capsys):
    folder, _ = hostile
    torch.save({"model": {}}, folder / "up.pth")
    assert cli.main([command, str(folder / "run"), "--checkpoint", name]) == 2
    assert "lies outside" in capsys.readouterr().err


# ---- sources ----------------------------------------------------------------------------------

FORBIDDEN = {
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "eval",
    "exec",
    "torch.hub.load",
    "joblib.load",
    "marshal.loads",
    "shelve.open",
}
ALLOWED = {("boot.py", "exec")}  # the script the user names
GUARDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def test_the_sources_read_nothing_carelessly():
    seen = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in FORBIDDEN:
                assert (path.name, name) in ALLOWED, f"{path}:{node.lineno} calls {name}"
            if name in GUARDED:
                option, value = GUARDED[name]
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get(option) == str(value), f"{path}:{node.lineno}"
                seen += 1
            if name.startswith("subprocess."):
                assert not any(k.arg == "shell" for k in node.keywords), f"{path}:{node.lineno}"
    assert seen >= 2
