"""The folders in which documented commands run, what lies in them, and how trainings are cut."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from documented import PAGES, ROOT, blocks, file_of
from stand_ins import THINGS, data_sets
from tiny_runs import PAIRS

#: Of every training: these win over what is typed.
CUT = {
    "SOLVER.MAX_EPOCH": 2,
    "CC.ITERS_PER_EPOCH": 1,
    "CC.WARMUP.EPOCHS": 0,
    "CC.SOURCES.PRETRAIN_EPOCHS": 1,
    "CC.SOURCES.IMS_PER_BATCH": 8,
    "CC.SOURCES.NUM_INSTANCE": 4,
    "CC.SAMPLES_PER_BN": 0,
    "SOLVER.IMS_PER_BATCH": 8,
    "DATALOADER.NUM_INSTANCE": 4,
    "SOLVER.CHECKPOINT_PERIOD": 2,
    "TEST.EVAL_PERIOD": 2,
}
#: And these where nothing is typed.
SMALL = dict(zip(PAIRS[::2], PAIRS[1::2], strict=True)) | {"MODEL.BACKBONE.DROP_PATH_RATIO": 0.0}
for _key in ("MODEL.BACKBONE.PRETRAIN", "CC.CLUSTER.DBSCAN.EPS"):
    del SMALL[_key]


class Places:
    """The folders of the pages, the stand-ins, and the process that runs what is typed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        data_sets(root / "datasets")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/plugin")]),
            "FASTREID_DATASETS": str(root / "datasets"),
            "TORCH_HOME": str(root / "cache"),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.runner = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/plugin/documented_runner.py")],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

        self.make("weights", root / "cache" / "checkpoints" / "osnet_x0_25_imagenet.pth")

    def make(self, name: str, path: Path) -> None:
        """A thing of stand_ins.py, made where fastreid is imported already."""
        code = f"import pathlib, stand_ins; stand_ins.{name}(pathlib.Path({str(path)!r}))"
        self.call("python", [code], "README.md", {})

    def of(self, page: str) -> Path:
        """A page's own folder, with the modules that it shows (`# my_parts.py`)."""
        folder = self.root / page.removesuffix(".md")
        if not folder.exists():
            folder.mkdir()
            for block in blocks(next(p for p in PAGES if p.name == page)):
                if name := file_of(block):
                    with open(folder / name, "a") as file:
                        file.write(block.text)
        return folder

    def call(self, kind: str, words: list[str], page: str, env: dict[str, str]) -> str:
        """What was printed; a command that fails, fails the test."""
        out = self.root / "out.txt"
        order = {"kind": kind, "words": words, "cwd": str(self.of(page)), "env": env}
        assert self.runner.stdin is not None and self.runner.stdout is not None
        print(json.dumps({**order, "out": str(out)}), file=self.runner.stdin, flush=True)
        status = self.runner.stdout.readline().strip()
        printed = out.read_text()
        assert status == "0", f"{words}: status {status}\n{printed[-3000:]}"
        return printed

    def put(self, name: str, page: str, *, wanted: bool) -> str:
        """The word that stands for a thing of the docs, made if it is `wanted` and not there."""
        make, path = THINGS.get(name), self.of(page) / name
        if name.startswith("/data/"):
            path = self.root / name.lstrip("/")
            name = str(path)
        if not wanted or path.exists():
            return name
        if make is not None:
            self.make(make.__name__, path)
        elif name.split("/")[0] in ("logs", "outputs") and not path.parent.name == "checkpoints":
            folder = path.parent if path.suffix in (".pth", ".yaml") else path
            shutil.copytree(self.a_run(), folder, dirs_exist_ok=True)
        elif name == "model_final.pth" and page == "uda.md":
            self.make("by_domain", path)
        elif name == "model_final.pth":
            shutil.copy(self.a_run() / name, path)
        elif name == "my.yml":
            text = (self.a_run() / "config.yaml").read_text()
            path.write_text(text.replace(str(self.a_run()), "logs/mine"))
        return name

    def a_run(self) -> Path:
        """A finished run of two steps on the crops."""
        run = self.root / "a_run"
        if not run.exists():
            crops = self.put("/data/my_crops", "README.md", wanted=True)
            rules = ["CC.FOLDER.CAMERA", r"/(\d+)_", "CC.FOLDER.IDENTITY", "folder:0"]
            words = ["train", "--config-file", "OwnImages/cc_osnet_x0_25", "OUTPUT_DIR", str(run)]
            words += ["CC.FOLDER.ROOT", crops, *rules, "CC.FOLDER.TEST_INCLUDE", "^(06|07|1)"]
            self.call(
                "cli", [*words, "MODEL.BACKBONE.PRETRAIN", "False", *cut(words)], "README.md", {}
            )
        return run


def newest(folder: Path) -> Path | None:
    """The final checkpoint that was written last."""
    found = sorted(folder.glob("**/model_final.pth"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def cut(words: list[str]) -> list[str]:
    """KEY VALUE pairs that make a training two steps long."""
    pairs = {key: value for key, value in SMALL.items() if key not in words} | CUT
    return [str(part) for pair in pairs.items() for part in pair]
