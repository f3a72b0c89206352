"""`export` and `clusters` on a tiny finished run: ONNX against torch, labels as files."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import VIT_PAIRS, build, config, plugin_at, train

from fastreid_cc import __main__ as cli

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUTPUT_DIR of a label-free run of two epochs, as `train_net.py` leaves it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with plugin_at(data_root):
        cfg = config(folder)
        train(cfg)
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


def run(capsys, *words):
    status = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def told(capsys, *words):
    status, out, err = run(capsys, *words, "--json")
    assert status == 0, err
    return json.loads(out)


# ---- export ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(finished: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run as an ONNX file, and what `export` told of it."""
    path, told = tmp_path_factory.mktemp("exported") / "m.onnx", io.StringIO()
    with plugin_at(data_root), contextlib.redirect_stdout(told):
        assert cli.main(["export", str(finished), "--out", str(path), "--json"]) == 0
    return path, json.loads(told.getvalue())


def test_a_run_becomes_a_file_that_gives_its_features(plugin, finished, exported):
    from fastreid.engine import DefaultTrainer
    from fastreid.utils.checkpoint import Checkpointer

    path, answer = exported
    assert answer["max_difference"] <= 1e-5 and answer["bytes"] == path.stat().st_size
    assert answer["checkpoint"].endswith("model_final.pth")
    model = DefaultTrainer.build_model(config(finished)).eval()
    Checkpointer(model).load(str(finished / "model_final.pth"))
    images = torch.randint(0, 256, (7, 3, 32, 16)).float()
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(None, {"images": images.numpy()})[0]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model({"images": images.clone()}))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert [file.name for file in path.parent.iterdir()] == ["m.onnx"]
    notes = session.get_modelmeta().custom_metadata_map
    assert notes["images"] == "float32, RGB, 0..255, [batch, 3, 32, 16]"
    assert notes["checkpoint"] == "model_final.pth"


@pytest.mark.parametrize("family", ["repvgg", "vit"])
def test_other_families_agree_with_torch_too(plugin, family, tmp_path, capsys):
    depth, size, more = {
        "repvgg": ("A0", 1280, ()),
        "vit": ("small", 768, VIT_PAIRS),
    }[family]
    answer = told(
        capsys,
        "export",
        "fastreid_cc://Base-ClusterContrast.yml",
        "--untrained",
        "--out",
        tmp_path / "m.onnx",
        "MODEL.BACKBONE.NAME",
        f"build_{family}_backbone",
        "MODEL.BACKBONE.DEPTH",
        depth,
        "MODEL.BACKBONE.FEAT_DIM",
        size,
        "INPUT.SIZE_TEST",
        "[32, 32]",
        "INPUT.SIZE_TRAIN",
        "[32, 32]",
        *more,
    )
    assert answer["max_difference"] <= 1e-5


def test_a_file_for_boxmot_takes_what_boxmot_feeds_and_embed_knows_it(
    plugin, finished, exported, data_root, tmp_path, capsys
):
    path = tmp_path / "m.onnx"
    answer = told(capsys, "export", finished, "--for", "boxmot", "--out", path)
    assert answer["least"] > 0.9999 and "training images" in answer["crops"]
    beside = json.loads((tmp_path / "m.onnx.metadata.json").read_text())
    assert beside["model_kwargs"] == {"img_size": [32, 16]} and beside["preprocess"] == "resize"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 16)).astype(np.float32)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    fed = (pixels / 255 - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    plain = onnxruntime.InferenceSession(str(exported[0])).run(None, {"images": pixels})[0]
    session = onnxruntime.InferenceSession(str(path))
    np.testing.assert_allclose(session.run(None, {"images": fed})[0], plain, atol=1e-4)
    assert np.abs(session.run(None, {"images": pixels})[0] - plain).max() > 0.01
    image = next(data_root.glob("synthetic-v*-seed1-ids8+4-cams2x3-32x16/query/*"))
    found = []
    for model in (path, exported[0]):
        told(capsys, "embed", model, image, "--out", tmp_path / "f.npy")
        found.append(np.load(tmp_path / "f.npy"))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_a_file_for_roboflow_is_a_module_of_any_batch(plugin, finished, exported, tmp_path, capsys):
    path = tmp_path / "m.pt"
    told(capsys, "export", finished, "--for", "roboflow", "--out", path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 16)).astype(np.float32)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    fed = torch.from_numpy((pixels / 255 - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1))
    plain = onnxruntime.InferenceSession(str(exported[0])).run(None, {"images": pixels})[0]
    module = torch.jit.load(str(path))
    for count in (1, 3):
        found = module(fed[:count])
        assert found.dtype == torch.float32 and not found.requires_grad
        np.testing.assert_allclose(found.numpy(), plain[:count], atol=1e-4)


def test_half_and_int8_files_are_smaller_and_near(plugin, exported, tmp_path):
    import shutil

    import onnx

    from fastreid_cc.plugin.offline import handed_over

    images = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 16)).astype(np.float32)
    wanted = handed_over.runner(exported[0])(images)
    for name, make, least in (
        ("half", handed_over.to_half, 0.999),
        ("int8", lambda path: handed_over.to_int8(path, images), 0.9),
    ):
        path = tmp_path / f"{name}.onnx"
        shutil.copy(exported[0], path)
        make(path)
        found = handed_over.runner(path)(images)
        assert path.stat().st_size < exported[0].stat().st_size or name == "int8"
        assert np.abs(found - wanted).max() > 0 and found.dtype == np.float32
        cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1)
        assert cosines.min() > least, name
        notes = {entry.key for entry in onnx.load(str(path)).metadata_props}
        assert "checkpoint" in notes
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_differs_is_not_kept(plugin, finished, tmp_path, capsys, monkeypatch):
    from fastreid_cc.plugin.offline import onnx_export as export

    monkeypatch.setattr(export, "write_onnx", lambda *_, **__: None)
    monkeypatch.setattr(export, "largest_difference", lambda *_, **__: float("nan"))
    status, out, err = run(capsys, "export", finished, "--out", tmp_path / "m.onnx")
    assert status == 1 and out == ""
    assert "differ by nan" in err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--checkpoint", "gone.pth"), 2, "no such checkpoint. In .*model_final.pth"),
        (("--checkpoint", "../../x.pth"), 2, "lies outside"),
        (("--out", "/nowhere/m.onnx"), 2, "there is no folder /nowhere"),
        (("--for", "roboflow", "--int8"), 2, "--int8 is for ONNX files"),
        (("--for", "roboflow", "--out", "m.onnx"), 2, "name ends in .pt"),
        (("MODEL.BACKBONE.DEPTH", "x0_5", "MODEL.BACKBONE.FEAT_DIM", "256"), 2, "does not fit"),
        (("MODEL.BACKBONE.DEEP", "1"), 2, "Did you mean MODEL.BACKBONE.DEPTH"),
    ],
)
def test_faults_of_export_are_one_line(plugin, finished, capsys, words, status, message):
    import re

    code, out, err = run(capsys, "export", finished, *words)
    assert code == status and out == "" and re.search(message, err)
    assert err.count("\n") == 1 and not (finished / "model.onnx").exists()


# ---- embed ----------------------------------------------------------------------------------


def test_a_run_an_onnx_file_and_a_config_embed_alike_and_label_goes_on(
    plugin, finished, exported, data_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    own = "synthetic-v*-seed1-ids8+4-cams2x3-32x16"  # other tests draw other sets beside it
    images = next(data_root.glob(f"{own}/bounding_box_train"))
    first = min(images.iterdir())
    config_file = finished / "config.yaml"
    weights = ("--set", "MODEL.WEIGHTS", finished / "model_final.pth")
    found = {}
    for name, words in {
        "run": (finished, images, "--batch", 7),
        "onnx": (exported[0], images),
        "config": (config_file, images, *weights),
        "one": (finished, first),
    }.items():
        answer = told(capsys, "embed", *words, "--out", f"{name}.npy")
        found[name] = np.load(f"{name}.npy")
        assert answer["shape"] == list(found[name].shape) and found[name].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found[name], axis=1), 1, atol=1e-5)
    assert len(found["run"]) == 48
    for name in ("onnx", "config"):
        np.testing.assert_allclose(found[name], found["run"], atol=1e-4)
    np.testing.assert_allclose(found["one"][0], found["run"][0], atol=1e-5)
    words = ("label", "run.npy", "--out", "labels.npz", "--csv", "labels.csv")
    words = (*words, "--distance", "cosine", "--cluster", "components", "--eps", 0.1)
    assert run(capsys, *words)[0] == 0
    rows = list(csv.DictReader(open("labels.csv")))
    assert [row["image"] for row in rows] == sorted(str(p) for p in images.iterdir())
    assert [int(row["cluster"]) for row in rows] == np.load("labels.npz")["labels"].tolist()


def test_a_network_that_keeps_ratios_keeps_them_as_an_onnx_file(
    plugin, finished, exported, tmp_path, capsys, monkeypatch
):
    import onnx
    from PIL import Image

    from fastreid_cc.plugin.offline import handed_over, onnx_export

    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (20, 33, 3)).astype(np.uint8)
    Image.fromarray(noise).save("wide.png")
    notes = {}
    with monkeypatch.context() as patch:
        patch.setattr(
            onnx_export, "write_onnx", lambda _, path, **told: notes.update(told, at=path.touch())
        )
        patch.setattr(onnx_export, "largest_difference", lambda *_, **__: 0.0)
        patch.setattr(handed_over, "runner", lambda *_, **__: None)
        same = handed_over.Compared(1.0, 1.0, 0.0)
        patch.setattr(handed_over, "compare", lambda *_, **__: same)
        run(capsys, "export", finished, "INPUT.KEEP_RATIO", "True", "--out", "m.onnx")
    assert [round(value) for value in notes["padding"]] == [124, 116, 104]
    model = onnx.load(str(exported[0]))
    onnx.helper.set_model_props(model, {"padding": "124 116 104"})  # as `write_onnx` notes it
    onnx.save(model, "kept.onnx")
    found = []
    for words in (
        ("kept.onnx", "wide.png"),
        (finished, "wide.png", "--set", "INPUT.KEEP_RATIO", "True"),
        (finished, "wide.png"),
    ):
        told(capsys, "embed", *words, "--out", "f.npy")
        found.append(np.load("f.npy")[0])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    assert np.abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("gone",), 2, "gone: no such file or folder"),
        (("notes.txt",), 2, "is no image by its name"),
        (("empty",), 2, "empty: no image in it"),
        (("bad.jpg",), 1, "1 of 1 images cannot be read:\nbad.jpg: empty file"),
        (("good.png", "bad.jpg"), 1, "--skip-unreadable leaves them out"),
        (("good.png", "--out", "x.txt"), 2, "must end in .npy"),
        (("good.png", "--out", "no/x.npy"), 2, "there is no folder no"),
        (("good.png", "--checkpoint", "x.pth"), 2, "no such checkpoint"),
    ],
)
def test_faults_of_embed_are_one_message(
    plugin, finished, tmp_path, capsys, monkeypatch, words, status, message
):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").touch()
    Path("bad.jpg").touch()
    Image.new("RGB", (8, 8)).save("good.png")
    code, out, err = run(capsys, "embed", finished, *words)
    assert code == status and out == "" and message in err, err
    assert not list(tmp_path.glob("**/*.npy"))


def draw(cfg) -> None:
    """Draws the images of a config where the tests' data lie."""
    from fastreid_cc.plugin.loading.datasets import configure_from
    from fastreid_cc.plugin.loading.target_images import collect_images

    configure_from(cfg)
    collect_images(cfg)


# ---- clusters -------------------------------------------------------------------------------


@pytest.fixture
def labels(finished: Path) -> np.ndarray:
    content = torch.load(finished / "model_final.pth", weights_only=True)
    return content["cc"]["labels"].numpy()


def test_clusters_become_a_table_and_folders_of_links(plugin, finished, labels, tmp_path, capsys):
    out = tmp_path / "found"
    answer = told(capsys, "clusters", finished, "--out", out)
    assert answer["clusters"] == labels.max() + 1 and answer["outliers"] == (labels < 0).sum()
    rows = list(csv.DictReader((out / "clusters.csv").open()))
    assert [int(row["cluster"]) for row in rows] == labels.tolist()
    assert {row["camera"] for row in rows} == {"0", "1"}
    linked = {path: os.readlink(path) for path in out.glob("*/*")}
    assert sorted(linked.values()) == [row["image"] for row in rows]
    by_target = {target: path.parent.name for path, target in linked.items()}
    for row in rows:
        place, label = by_target[row["image"]], int(row["cluster"])
        wanted = f"cluster_{label:05d}_{(labels == label).sum()}_images"
        assert place == ("outliers" if label < 0 else wanted)
    assert all(path.exists() for path in linked)


def test_copies_and_the_table_alone(plugin, finished, tmp_path, capsys):
    told(capsys, "clusters", finished, "--out", tmp_path / "a", "--copy")
    copied = list((tmp_path / "a").glob("*/*.jpg"))
    assert len(copied) == 48 and not any(path.is_symlink() for path in copied)
    told(capsys, "clusters", finished, "--out", tmp_path / "b", "--csv-only")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["clusters.csv"]


def test_what_is_there_is_never_overwritten(plugin, finished, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("there", "link"):
        status, _, err = run(capsys, "clusters", finished, "--out", tmp_path / name)
        assert status == 2 and "exists already" in err
    assert not (tmp_path / "elsewhere").exists() and not list((tmp_path / "there").iterdir())


def test_labels_of_other_images_are_refused(plugin, finished, tmp_path, capsys):
    draw(config(finished, "CC.SYNTHETIC.TRAIN_IDS", 6))
    status, _, err = run(
        capsys, "clusters", finished, "CC.SYNTHETIC.TRAIN_IDS", 6, "--out", tmp_path / "x"
    )
    assert status == 1 and "labels 48 images, DATASETS.NAMES has 36" in err
    status, _, err = run(
        capsys, "clusters", finished, "DATASETS.NAMES", "()", "--out", tmp_path / "x"
    )
    assert status == 1
    content = torch.load(finished / "model_final.pth", weights_only=True)
    content["cc"]["images"] = "0" * 16
    torch.save(content, finished / "renamed.pth")
    status, _, err = run(
        capsys, "clusters", finished, "--checkpoint", "renamed.pth", "--out", tmp_path / "x"
    )
    (finished / "renamed.pth").unlink()
    assert status == 1 and "of other names" in err and not (tmp_path / "x").exists()
    copy = shutil.copytree(finished, tmp_path / "copy")  # building writes its config there
    with pytest.raises(ValueError, match="not the same data set"):
        build(config(copy, "CC.SYNTHETIC.TRAIN_IDS", 6), resume=True)


def test_no_data_set_is_drawn_where_the_images_are_not(plugin, finished, tmp_path, capsys):
    """Found by a user: with another FASTREID_DATASETS `clusters` drew a data set there."""
    with plugin_at(tmp_path / "elsewhere"):
        status, _, err = run(capsys, "clusters", finished, "--out", tmp_path / "x")
    assert status == 1 and "FASTREID_DATASETS" in err and "elsewhere" in err
    assert not list(tmp_path.iterdir())


def test_clusters_keep_the_names_of_an_earlier_table(plugin, finished, labels, tmp_path, capsys):
    told(capsys, "clusters", finished, "--out", tmp_path / "old", "--csv-only")
    rows = list(csv.reader((tmp_path / "old" / "clusters.csv").open()))
    largest = str(np.bincount(labels[labels >= 0]).argmax())
    for row in rows[1:]:
        row[1] = "40" if row[1] == largest else "-1"
    table = tmp_path / "earlier.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows[:1] + [["gone.jpg", "90", "0"]] + rows[2:])
    words = ("clusters", finished, "--names-of", table)
    answer = told(capsys, *words, "--out", tmp_path / "new")
    assert (answer["kept_names"], answer["new_names"]) == (1, labels.max())
    found = [int(row["cluster"]) for row in csv.DictReader((tmp_path / "new/clusters.csv").open())]
    assert found == [
        -1 if c < 0 else 40 if str(c) == largest else 91 + c - (c > int(largest))
        for c in labels.tolist()
    ]
    assert len(list((tmp_path / "new").glob(f"cluster_00040_{found.count(40)}_images/*"))) > 1
    table.write_text("image,cluster,camera\nelsewhere.jpg,1,0\n")
    status, _, err = run(capsys, *words, "--out", tmp_path / "x")
    assert status == 2 and "names none of the 48 images" in err and not (tmp_path / "x").exists()


# ---- review ---------------------------------------------------------------------------------


def test_a_review_asks_and_never_asks_again(plugin, finished, labels, data_root, tmp_path, capsys):
    from fastreid_cc.labeling.answers import read_answers

    out = tmp_path / "first"
    answer = told(capsys, "review", finished, "--questions", 4, "--out", out)
    assert (answer["questions"], answer["answered"]) == (4, 0)
    assert sorted(path.name for path in out.iterdir()) == ["answers.csv", "review.html"]
    rows = list(csv.reader((out / "answers.csv").open()))
    assert rows[0] == ["first", "second", "same"] and [row[2] for row in rows[1:]] == [""] * 4
    assert all((data_root / name).is_file() for row in rows[1:] for name in row[:2])
    for row, said in zip(rows[1:], ("yes", "no", "no", ""), strict=True):
        row[2] = said
    with (out / "answers.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    again = tmp_path / "again"
    words = ("review", finished, "--questions", 1000, "--out", again)
    answer = told(capsys, *words, "CC.LINKS.FILE", out / "answers.csv")
    assert answer["answered"] == 3 and answer["questions"] > 4
    found = [tuple(row) for row in csv.reader((again / "answers.csv").open())]
    assert found[1:4] == [tuple(row) for row in rows[1:4]]
    assert not {row[:2] for row in found[4:]} & {row[:2] for row in found[1:4]}
    names = sorted({name for row in found[1:] for name in row[:2]})
    assert len(read_answers(again / "answers.csv", names).other) == 2
    status, _, err = run(capsys, *words)
    assert status == 2 and "exists already" in err
