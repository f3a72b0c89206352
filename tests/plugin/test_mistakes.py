"""What people type wrong: each is one message that names it, before anything is built or printed.

The commands run in this process; a training that begins to build a network fails its test.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastreid_cc import __main__ as cli

MOST_LINES = 6
FOLDER = ("DATASETS.NAMES", "('UnlabeledFolder',)", "DATASETS.TESTS", "()")
SOURCE = (
    *("CC.SOURCES.FOLDERS.SHOP.ROOT", "../crops", "CC.SOURCES.FOLDERS.SHOP.IDENTITY", "folder:0"),
    *("CC.WARMUP.EPOCHS", 0, "CC.SOURCES.IMS_PER_BATCH", 8, "CC.SOURCES.MODE", "joint"),
)


@pytest.fixture
def here(tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a few things in it; trainings that would start fail."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.import_module("fastreid.data.build"), "_root", "datasets")
    for person in range(2):
        for camera in (1, 2):
            for shot in range(8):
                place = Path("crops", f"{person:03d}", f"c{camera}_{shot}.png")
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 16), (person * 90, camera * 60, shot)).save(place)
    Path("empty").mkdir()
    Path("datasets").mkdir()
    Path("file").touch()
    Path("old").mkdir()
    Path("old", "last_checkpoint").write_text("model_final.pth")
    Path("bad.yml").write_text("a: [\n")
    Path("list.yml").write_text("- 1\n")
    Path("loop.yml").write_text("_BASE_: loop.yml\n")
    Path("key.yml").write_text("CC: {MEMRY: {NAME: cluster}}\n")
    Path("folders.yml").write_text("CC: {SOURCES: {FOLDERS: [crops]}}\n")
    Path("typed.yml").write_text("CC: {SEED: one}\n")
    Path("base.yml").write_text("_BASE_: fastreid_cc://Base-USLL.yml\n")
    np.save("ints.npy", np.arange(12))
    np.save("few.npy", np.eye(4, dtype=np.float32))
    np.save("nan.npy", np.full((9, 4), np.nan, np.float32))
    Path("wrong.csv").write_text("file\na\n")
    Path("short.csv").write_text("image\na\n")

    class Started:
        def __init__(self, *_: Any) -> None:
            raise AssertionError("a network was about to be built")

        build_model = __init__

    monkeypatch.setattr(
        importlib.import_module("fastreid_cc.plugin.training"), "DefaultTrainer", Started
    )
    return tmp_path


def pairs(*words: object) -> tuple[str, ...]:
    """A training of the quick config with KEY VALUE pairs."""
    return ("train", "--config-file", "quick/usl_tiny", "OUTPUT_DIR", "out", *map(str, words))


def config(name: str) -> tuple[str, ...]:
    """A training of another config."""
    return ("train", "--config-file", name, "OUTPUT_DIR", "out")


def two(key: str, value: object) -> Any:
    """A training with one pair."""
    return pairs(key, value)


#: Words, exit status, what the message says.
MISTAKES: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
    # parts that there are not
    (two("CC.CLUSTER.NAME", "dbscn"), 2, ("CC.CLUSTER.NAME='dbscn'", "mean 'dbscan'?", "Known:")),
    (two("CC.MEMORY.NAME", "clustr"), 2, ("CC.MEMORY.NAME='clustr'", "mean 'cluster'?")),
    (two("CC.DISTANCE.NAME", "jacard"), 2, ("CC.DISTANCE.NAME='jacard'", "mean 'jaccard'?")),
    (two("CC.NEIGHBORS.NAME", "exat"), 2, ("CC.NEIGHBORS.NAME='exat'", "mean 'exact'?")),
    (two("CC.REFINE.NAMES", "('selfpaced',)"), 2, ("CC.REFINE.NAMES", "mean 'self_paced'?")),
    (two("MODEL.LOSSES.NAME", "('MemoryContrst',)"), 2, ("mean 'MemoryContrast'?",)),
    (two("MODEL.LOSSES.NAME", "('CrossEntropyLoss',)"), 2, ("MODEL.LOSSES.NAME", "MemoryContrast")),
    (two("MODEL.META_ARCHITECTURE", "ClusterContast"), 2, ("mean ClusterContrast?",)),
    (two("MODEL.BACKBONE.NAME", "build_resnet"), 2, ("mean build_resnet_backbone?",)),
    (two("MODEL.HEADS.NAME", "ContrastHead"), 2, ("MODEL.HEADS.NAME", "ClusterContrastHead")),
    (two("MODEL.HEADS.POOL_LAYER", "GemPool"), 2, ("MODEL.HEADS.POOL_LAYER", "GlobalAvgPool")),
    (two("MODEL.HEADS.NECK_FEAT", "behind"), 2, ("MODEL.HEADS.NECK_FEAT", "before")),
    (two("SOLVER.OPT", "Adm"), 2, ("SOLVER.OPT='Adm'", "Did you mean Adam?")),
    (two("SOLVER.SCHED", "Cosine"), 2, ("SOLVER.SCHED", "CosineAnnealingLR")),
    # keys and values
    (two("CC.CLUSTER.DBSCAN.EPSS", 0.5), 2, ("Did you mean CC.CLUSTER.DBSCAN.EPS?",)),
    (two("CC.CLUSTR.NAME", "dbscan"), 2, ("Did you mean CC.CLUSTER.NAME?", "config WORD")),
    (two("CC.CLUSTER.DBSCAN.EPS", 1.5), 2, ("CC.CLUSTER.DBSCAN.EPS=1.5 must lie in (0, 1]",)),
    (two("CC.CLUSTER.DBSCAN.EPS", 1), 2, ("CC.CLUSTER.DBSCAN.EPS", "with a point")),
    (two("CC.CLUSTER.DBSCAN.EPS", "wide"), 2, ("CC.CLUSTER.DBSCAN.EPS",)),
    (two("CC.CLUSTER.DBSCAN.MIN_SAMPLES", 2.5), 2, ("CC.CLUSTER.DBSCAN.MIN_SAMPLES",)),
    (two("CC.LABELS.OUTLIERS", "keep"), 2, ("CC.LABELS.OUTLIERS='keep'", "drop, singleton")),
    (two("CC.SAMPLER.CAMERA_AWARE", "maybe"), 2, ("CC.SAMPLER.CAMERA_AWARE", "auto, on, off")),
    (two("CC.SEED", -1), 2, ("CC.SEED=-1",)),
    (two("MODEL.HEADS.NUM_CLASSES", 10), 2, ("MODEL.HEADS.NUM_CLASSES=10", "leave it 0")),
    (pairs("CC.CLUSTER.DBSCAN.EPS"), 2, ("KEY VALUE pairs come in twos",)),
    (pairs("CC.SEED=3"), 2, ("CC.SEED=3: write CC.SEED 3, with a space",)),
    (pairs("CC.SEED=3", "CC.CLUSTER.DBSCAN.EPS=0.5"), 2, ("CC.SEED",)),
    # what keys must agree on
    (two("SOLVER.IMS_PER_BATCH", 30), 2, ("SOLVER.IMS_PER_BATCH=30", "NUM_INSTANCE")),
    (two("DATALOADER.NUM_INSTANCE", 32), 2, ("DATALOADER.NUM_INSTANCE", "at least 2")),
    (two("CC.WARMUP.EPOCHS", 99), 2, ("CC.WARMUP.EPOCHS=99 must not exceed SOLVER.MAX_EPOCH",)),
    (pairs("CC.REFINE.NAMES", "('merge_proposals',)", "CC.MEMORY.NAME", "instance"), 2,
     ("merge_proposals", "CC.MEMORY.NAME=instance")),
    (two("CC.SOURCES.NAMES", "('SyntheticReID',)"), 2, ("CC.SOURCES.NAMES", "name it once")),
    (two("CC.ENABLED", False), 2, ("CC.ENABLED", "MemoryContrast")),
    (pairs("CC.SYNTHETIC.IMAGES_PER_CAMERA", 1), 2, ("CC.SYNTHETIC.IMAGES_PER_CAMERA=1",)),
    (pairs("CC.CLUSTER.DBSCAN.EPS", 2.0, "CC.SEED", -1, "CC.MEMORY.NAME", "x", "CC.WARMUP.EPOCHS",
           99, "SOLVER.IMS_PER_BATCH", 30, "CC.LABELS.OUTLIERS", "keep", "CC.LABELS.PERIOD", 0), 2,
     ("8 faults in the config", "and 4 more")),
    # data sets
    (two("DATASETS.NAMES", "()"), 2, ("DATASETS.NAMES is empty",)),
    (two("DATASETS.NAMES", "('Market',)"), 2, ("DATASETS.NAMES='Market'", "mean Market1501?")),
    (two("DATASETS.TESTS", "('Duke',)"), 2, ("DATASETS.TESTS='Duke'", "mean DukeMTMC?")),
    (two("CC.SOURCES.NAMES", "('MSMT',)"), 2, ("CC.SOURCES.NAMES='MSMT'", "mean MSMT17?")),
    *[
        (two(key, f"('{name}',)"), 1, (f"{key} {name}: ", "FASTREID_DATASETS=", *more, "doctor"))
        for key, name, *more in (
            ("DATASETS.NAMES", "Market1501", "must hold bounding_box_train", "12,936"),
            ("DATASETS.TESTS", "DukeMTMC", "DukeMTMC-reID/", "16,522"),
            ("DATASETS.NAMES", "MSMT17", "MSMT17_V1/", "MSMT17_V2/"),
            ("DATASETS.NAMES", "VeRi", "veri/", "image_train"),
            ("DATASETS.NAMES", "PersonX", "PersonX/", "30,816"),
            ("DATASETS.NAMES", "CUHK03"),
        )
    ],
    # folders of images
    (pairs(*FOLDER), 2, ("CC.FOLDER.ROOT is empty",)),
    (pairs(*FOLDER, "CC.FOLDER.ROOT", "gone"), 2, ("CC.FOLDER.ROOT='gone': no folder", "below")),
    (pairs(*FOLDER, "CC.FOLDER.ROOT", "../empty"), 2, ("CC.FOLDER.ROOT", "no image (.jpg")),
    *[
        (pairs(*FOLDER, "CC.FOLDER.ROOT", "../crops", *words), 2, told)
        for words, told in (
            (("CC.FOLDER.CAMERA", r"_cam(\d+)_"), ("CC.FOLDER.CAMERA", "does not match '000/c1_0")),
            (("CC.FOLDER.CAMERA", "c(("), ("CC.FOLDER.CAMERA", "is no regex")),
            (("CC.FOLDER.CAMERA", "c1"), ("CC.FOLDER.CAMERA", "needs one group in parentheses")),
            (("CC.FOLDER.CAMERA", "folder:x"), ("CC.FOLDER.CAMERA", "comes a level")),
            (("CC.FOLDER.IDENTITY", r"^p(\d+)"), ("CC.FOLDER.IDENTITY", "matches no image")),
            (("CC.FOLDER.INCLUDE", "zebra"), ("CC.FOLDER.INCLUDE='zebra'", "No image is left")),
            (("CC.FOLDER.EXCLUDE", "."), ("no image",)),
            (("CC.FOLDER.TEST_INCLUDE", "^test/"), ("set CC.FOLDER.IDENTITY",)),
            (("CC.FOLDER.TEST_INCLUDE", "^test/", "CC.FOLDER.IDENTITY", "folder:0"),
             ("CC.FOLDER.TEST_INCLUDE='^test/' matches no image",)),
            (("CC.FOLDER.QUERY", "q"), ("CC.FOLDER.QUERY and CC.FOLDER.GALLERY",)),
            (("CC.FOLDER.QUERY_CAMERAS", "('1',)"), ("CC.FOLDER.QUERY_CAMERAS", "set both")),
            (("CC.FOLDER.CAMERA_SECTORS", "(4,)"), ("CC.FOLDER.CAMERA_SECTORS",)),
            (("CC.FOLDER.MAX_BAD_SHARE", 2.0), ("CC.FOLDER.MAX_BAD_SHARE=2.0",)),
            (("CC.ITERS_PER_EPOCH", 0, "SOLVER.IMS_PER_BATCH", 64),
             ("32 images, fewer than one batch of SOLVER.IMS_PER_BATCH=64",)),
        )
    ],
    # labelled folders as sources
    (two("CC.SOURCES.FOLDERS", "('crops',)"), 2, ("CC.SOURCES.FOLDERS=", "SHOP.ROOT /data/shop")),
    (two("CC.SOURCES.FOLDERS.SHOP", "crops"), 2, ("CC.SOURCES.FOLDERS.SHOP=crops", "e.g.")),
    (two("CC.SOURCES.FOLDERS.ROOT", "crops"), 2, ("CC.SOURCES.FOLDERS.ROOT=crops: a folder has",)),
    (two("CC.SOURCES.FOLDERS.my-shop.ROOT", "crops"), 2, ("FOLDERS.my-shop: no name",)),
    (config("folders.yml"), 2, ("CC.SOURCES.FOLDERS=['crops']: a folder has a name",)),
    (two("CC.SOURCES.FOLDERS.SHOP.IDENTIT", "folder:0"), 2, ("mean CC.SOURCES.FOLDERS.SHOP.IDEN",)),
    *[
        (pairs(*SOURCE, *words), 2, told)
        for words, told in (
            (("CC.SOURCES.FOLDERS.SHOP.ROOT", ""), ("CC.SOURCES.FOLDERS.SHOP.ROOT is empty",)),
            (("CC.SOURCES.FOLDERS.SHOP.ROOT", "gone"), ("FOLDERS.SHOP.ROOT='gone': no folder",)),
            (("CC.SOURCES.FOLDERS.SHOP.ROOT", "../empty"), ("FOLDERS.SHOP.ROOT", "no image (.jpg")),
            (("CC.SOURCES.FOLDERS.SHOP.IDENTITY", ""),
             ("CC.SOURCES.FOLDERS.SHOP.IDENTITY is empty: a source needs labels", "folder:0")),
            (("CC.SOURCES.FOLDERS.SHOP.IDENTITY", r"^p(\d+)"),
             ("CC.SOURCES.FOLDERS.SHOP.IDENTITY='^p(\\\\d+)' matches no image", "000/c1_0.png")),
            (("CC.SOURCES.FOLDERS.SHOP.IDENTITY", "(c)"), ("SHOP has 32 images and 1 known",)),
            (("CC.SOURCES.FOLDERS.SHOP.IDENTITY", "c("), ("FOLDERS.SHOP.IDENTITY='c('", "regex")),
            (("CC.SOURCES.FOLDERS.SHOP.CAMERA", r"cam(\d)"), ("FOLDERS.SHOP.CAMERA", "not match")),
            (("CC.SOURCES.FOLDERS.SHOP.INCLUDE", "zebra"), ("FOLDERS.SHOP.INCLUDE='zebra'",)),
            (("CC.SOURCES.FOLDERS.SHOP.MAX_BAD_SHARE", 2.0), ("FOLDERS.SHOP.MAX_BAD_SHARE=2.0",)),
            (("CC.SOURCES.IMS_PER_BATCH", 64), ("SHOP: 2 identities fill 8 of the 64 places",)),
            (("CC.SOURCES.VALIDATION", 0.5, "TEST.EVAL_PERIOD", 1),
             ("CC.SOURCES.VALIDATION=0.5: of 2 identities of SHOP",)),
            ((*FOLDER, "CC.FOLDER.ROOT", "../crops", "CC.SOURCES.FOLDERS.SHOP.ROOT",
              "../empty/../crops"), ("SHOP holds", "DATASETS.NAMES holds too", "EXCLUDE")),
            (("CC.SOURCES.FOLDERS.YARD.ROOT", "../crops",
              "CC.SOURCES.FOLDERS.YARD.IDENTITY", "folder:0"), ("YARD holds", "which SHOP holds")),
        )
    ],
    # weights and folders for results
    (two("MODEL.WEIGHTS", "gone.pth"), 2, ("MODEL.WEIGHTS=gone.pth: no such file",)),
    (two("MODEL.WEIGHTS", "empty"), 2, ("MODEL.WEIGHTS=empty: is a folder",)),
    (pairs("MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", "gone.pth"), 2,
     ("MODEL.BACKBONE.PRETRAIN_PATH=gone.pth: no such file", "docs/weights.md", "cc convert FILE")),
    ((*pairs(), "--eval-only"), 2, ("--eval-only without MODEL.WEIGHTS", "random weights")),
    ((*pairs("MODEL.WEIGHTS", "file", "DATASETS.TESTS", "()"), "--eval-only"), 2,
     ("--eval-only with an empty DATASETS.TESTS",)),
    ((*pairs("MODEL.WEIGHTS", "gone.pth"), "--eval-only"), 2, ("MODEL.WEIGHTS=gone.pth",)),
    (two("OUTPUT_DIR", "old"), 2, ("OUTPUT_DIR=old holds another run", "--resume", "CC.OVERWRITE")),
    (two("OUTPUT_DIR", "file"), 1, ("OUTPUT_DIR=file cannot be written",)),
    # config files
    (config("gone.yml"), 2, ("gone.yml: no such file", "config --files")),
    (config("market1501/cc_r50"), 2, ("Did you mean Market1501/cc_R50?",)),
    (config("configs/Market1501/cc_R50.yml"), 2, ("Did you mean Market1501/cc_R50?",)),
    (config("usl_tny"), 2, ("Did you mean quick/usl_tiny?",)),
    (config("fastreid_cc://Market1501/cc_R5.yml"), 2, ("Did you mean Market1501/cc_R50?",)),
    (config("empty"), 2, ("Is a directory",)),
    (config("bad.yml"), 2, ("bad.yml is no YAML",)),
    (config("list.yml"), 2, ("list.yml holds a list",)),
    (config("loop.yml"), 2, ("leads back to itself",)),
    (config("key.yml"), 2, ("key.yml", "CC.MEMRY", "Did you mean CC.MEMORY")),
    (config("typed.yml"), 2, ("typed.yml", "CC.SEED")),
    (config("base.yml"), 2, ("Did you mean Base-USL?",)),
    # command lines
    (("doctr",), 2, ("Did you mean doctor?",)),
    (("train",), 2, ("--config-file",)),
    (("train", "gone.py"), 2, ("gone.py: no such script",)),
    ((*pairs(), "--resum"), 2, ("--resum", "Did you mean --resume?")),
    ((*pairs(), "--num-gpus", "0"), 2, ("--num-gpus: 0 must be at least 1",)),
    ((*pairs(), "--num-gpus", "two"), 2, ("--num-gpus: 'two' is no whole number",)),
    ((*pairs(), "--num-gpus", "3"), 2, ("3 process(es)", "SOLVER.IMS_PER_BATCH")),
    (("--import", "gone", *pairs()), 1, ("--import gone: no such module",)),
    (("doctor", "--wieghts"), 2, ("Did you mean --weights?",)),
    (("config", "dbscn"), 1, ("no key holds 'dbscn'", "CC.CLUSTER.DBSCAN")),
    (("config", "--files", "gone"), 1, ("no shipped config holds 'gone'",)),
    *[
        ((name, "empty"), 2, ("empty holds no config.yaml", "OUTPUT_DIR"))
        for name in ("clusters", "export")
    ],
    (("clusters", "gone"), 2, ("gone: no such folder",)),
    (("export", "gone"), 2, ("gone: no such file",)),
    (("export", "quick/usl_tiny"), 2, ("names no weights", "MODEL.WEIGHTS")),
    (("export", "quick/usl_tiny", "MODEL.WEIGHTS", "gone.pth"), 2, ("MODEL.WEIGHTS=gone.pth",)),
    (("report", "gone"), 2, ("gone",)),
    (("report", "empty"), 2, ("empty",)),
    (("convert", "gone.pth", "--out", "x.pth"), 2, ("gone.pth: no such file",)),
    (("convert", "file", "--out", "file"), 2, ("file is there already", "--overwrite")),
    (("convert", "file", "--out", "x.pth"), 1, ("file is damaged or is no checkpoint",)),
    (("strip-domain-bn", "gone.pth", "x.pth"), 2, ("gone.pth: no such file",)),
    (("embed", "gone", "crops"), 2, ("gone: no such file",)),
    (("embed", "gone.onnx", "crops"), 2, ("gone.onnx: no such file",)),
    (("embed", "quick/usl_tiny", "crops"), 2, ("names no weights",)),
    (("embed", "empty", "crops"), 2, ("empty holds no config.yaml",)),
    (("label", "gone.npy", "--out", "x.npz"), 2, ("gone.npy: no such file",)),
    (("label", "file", "--out", "x.npz"), 2, ("file is not a plain .npy",)),
    (("label", "ints.npy", "--out", "x.npz"), 2, ("found int64; wanted", "[N, D]")),
    (("label", "nan.npy", "--out", "x.npz"), 2, ("9 of 9 rows are zero or not finite",)),
    (("label", "few.npy", "--out", "no/x.npz"), 2, ("there is no folder no",)),
    (("label", "few.npy", "--out", "x.npz", "--csv", "x.csv"), 2, ("few.csv: no such table",)),
    (("label", "few.npy", "--out", "x.npz", "--images", "wrong.csv"), 2, ("no column `image`",)),
    (("label", "few.npy", "--out", "x.npz", "--images", "short.csv"), 2, ("names 1 images",)),
    (("label", "few.npy", "--out", "x.npz", "--cluster", "dbscn"), 2, ("choose from",)),
    (("label", "few.npy"), 2, ("the following arguments are required: --out",)),
]  # fmt: skip


def run(words: tuple[str, ...]) -> int:
    """Exit status of a command line."""
    try:
        return cli.main(words)
    except SystemExit as ended:  # of argparse
        assert isinstance(ended.code, int)
        return ended.code


@pytest.mark.parametrize("words, status, told", MISTAKES, ids=lambda v: " ".join(map(str, v))[-60:]
                         if isinstance(v, tuple) else str(v))  # fmt: skip
def test_a_mistake_is_one_message(
    here: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, told: Any
) -> None:
    before = sorted(here.rglob("*"))
    found = run(words)
    out, err = capfd.readouterr()
    assert found == status, err
    for part in told:
        assert part in err, err
    assert out == "" and "Traceback" not in err and len(err.splitlines()) <= MOST_LINES, out + err
    assert sorted(here.rglob("*")) == before, "something was written"


def test_the_table_is_long() -> None:
    assert len(MISTAKES) >= 100
    assert len({words for words, _, _ in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize(
    "name, status", [("errors.BadConfig", 2), ("data.checks.UnreadableImages", 1)]
)
def test_a_mistake_that_a_started_process_finds_is_told_alike(
    plugin: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    status: int,
) -> None:
    from torch.multiprocessing import ProcessRaisedException

    text = f"-- Process 1 terminated:\nTraceback ...\nfastreid_cc.{name}: CC.SEED=-1\nis wrong\n"
    for last in ("", "\nZeroDivisionError: x\n"):

        def fail(*_: Any, last: str = last) -> None:
            raise ProcessRaisedException(text if not last else f"Traceback{last}", 1, 2)

        monkeypatch.setattr("fastreid_cc.boot.run", fail)
        if last:
            with pytest.raises(ProcessRaisedException, match="ZeroDivision"):
                cli.main([__file__])
        else:
            assert cli.main([__file__]) == status
            assert capsys.readouterr().err == "fastreid_cc: CC.SEED=-1\nis wrong\n"
