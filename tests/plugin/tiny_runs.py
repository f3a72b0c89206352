"""Label-free runs of seconds: a config, a training in this process, a command line, a digest."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("stock_train_net.py")
YAML = ROOT / "configs" / "quick" / "usl_tiny.yml"

#: Over usl_tiny.yml: OSNet x0.25 on 48 images of 32x16, two epochs of two batches, no warm-up.
PAIRS: tuple[object, ...] = (
    "MODEL.DEVICE",
    "cpu",
    "MODEL.BACKBONE.NAME",
    "build_osnet_backbone",
    "MODEL.BACKBONE.DEPTH",
    "x0_25",
    "MODEL.BACKBONE.FEAT_DIM",
    128,
    "MODEL.BACKBONE.PRETRAIN",
    False,
    "INPUT.SIZE_TRAIN",
    [32, 16],
    "INPUT.SIZE_TEST",
    [32, 16],
    "DATALOADER.NUM_WORKERS",
    0,
    "DATALOADER.NUM_INSTANCE",
    4,
    "SOLVER.IMS_PER_BATCH",
    8,
    "SOLVER.MAX_EPOCH",
    2,
    "SOLVER.WARMUP_ITERS",
    0,
    "SOLVER.CHECKPOINT_PERIOD",
    1,
    "TEST.EVAL_PERIOD",
    100,
    "TEST.IMS_PER_BATCH",
    32,
    "CC.ITERS_PER_EPOCH",
    2,
    "CC.WARMUP.EPOCHS",
    0,
    "CC.SYNTHETIC.TRAIN_IDS",
    8,
    "CC.SYNTHETIC.TEST_IDS",
    4,
    "CC.SYNTHETIC.CAMERAS",
    2,
    "CC.SYNTHETIC.IMAGES_PER_CAMERA",
    3,
    "CC.SYNTHETIC.HEIGHT",
    32,
    "CC.SYNTHETIC.WIDTH",
    16,
    "CC.DISTANCE.JACCARD.K1",
    8,
    "CC.DISTANCE.JACCARD.K2",
    2,
    "CC.CLUSTER.DBSCAN.EPS",
    0.6,
    "CC.CLUSTER.DBSCAN.MIN_SAMPLES",
    2,
)

#: Pairs that a ViT needs beside its builder's name.
VIT_PAIRS: tuple[object, ...] = (
    "MODEL.BACKBONE.STRIDE_SIZE",
    "[16, 16]",
    "MODEL.HEADS.POOL_LAYER",
    "Identity",
    "MODEL.BACKBONE.SIE_COE",
    3.0,
    "MODEL.BACKBONE.DROP_PATH_RATIO",
    0.1,
)


#: Pairs of a CLIP tower of 24 features, beside its builder's name.
CLIP_PAIRS: tuple[object, ...] = (
    "MODEL.BACKBONE.CLIP.WIDTH",
    16,
    "MODEL.BACKBONE.CLIP.DEPTH",
    2,
    "MODEL.BACKBONE.CLIP.HEADS",
    2,
    "MODEL.BACKBONE.CLIP.EMBED_DIM",
    8,
    "MODEL.BACKBONE.CLIP.PATCH",
    8,
    "MODEL.BACKBONE.CLIP.STRIDE",
    8,
    "MODEL.HEADS.POOL_LAYER",
    "Identity",
)


@contextmanager
def plugin_at(data_root: Path) -> Iterator[None]:
    """The plug-in is active, and fastreid looks for data sets below `data_root`."""
    importlib.import_module("fastreid_cc.plugin")
    build = importlib.import_module("fastreid.data.build")
    before, build._root = build._root, str(data_root)
    try:
        yield
    finally:
        build._root = before


def answer(capsys: Any, *words: object) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of a command, in this process."""
    from fastreid_cc import __main__ as cli

    status = cli.main(list(map(str, words)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def pairs(output: Path, *extra: object) -> list[str]:
    """KEY VALUE pairs of a tiny run; later pairs win."""
    return [str(value) for value in (*PAIRS, "OUTPUT_DIR", output, *extra)]


def config(output: Path, *extra: object) -> Any:
    """The frozen config of a tiny run."""
    from fastreid.config import get_cfg

    cfg = get_cfg()
    cfg.merge_from_file(str(YAML))
    cfg.merge_from_list(pairs(output, *extra))
    cfg.freeze()
    return cfg


def build(cfg: Any, *, resume: bool = False) -> Any:
    """Stock DefaultTrainer, ready to train."""
    from fastreid.engine import DefaultTrainer

    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def train(cfg: Any, *, resume: bool = False) -> Any:
    """Trains through and returns the trainer."""
    trainer = build(cfg, resume=resume)
    trainer.train()
    return trainer


def weights(output: Path, name: str = "model_final.pth") -> dict[str, torch.Tensor]:
    """Model tensors of a checkpoint."""
    state: dict[str, torch.Tensor] = torch.load(output / name, map_location="cpu")["model"]
    return state


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """Hash of names, types and bytes of tensors."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def same(a: Any, b: Any, where: str = "") -> str:
    """Where two checkpoints first differ, "" if nowhere: tensors bit by bit, plain values by ==."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return "" if digest({"": a}) == digest({"": b}) else where
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return f"{where}: keys {set(a) ^ set(b)}"
        return next(filter(None, (same(a[key], b[key], f"{where}.{key}") for key in a)), "")
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs_ = enumerate(zip(a, b, strict=True))
        return next(filter(None, (same(x, y, f"{where}[{i}]") for i, (x, y) in pairs_)), "")
    return "" if type(a) is type(b) and a == b else f"{where}: {a!r} and {b!r}"


def metrics(output: Path) -> list[dict[str, float]]:
    """Lines of metrics.json."""
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def environment(data_root: Path) -> dict[str, str]:
    """Environment of a child: one thread, our checkout and these tests importable."""
    path = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "FASTREID_DATASETS": str(data_root),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "CUDA_VISIBLE_DEVICES": "",
    }


def command(
    output: Path, *extra: object, flags: tuple[str, ...] = (), imports: tuple[str, ...] = ()
) -> list[str]:
    """`python -m fastreid_cc stock_train_net.py --config-file … KEY VALUE …`."""
    ours = [part for name in imports for part in ("--import", name)]
    return [
        sys.executable,
        "-m",
        "fastreid_cc",
        *ours,
        str(SCRIPT),
        "--config-file",
        str(YAML),
        *flags,
        *pairs(output, *extra),
    ]


def torchrun(line: list[str], processes: int = 2) -> list[str]:
    """The same command line, started by torchrun on a free port."""
    assert line[:3] == [sys.executable, "-m", "fastreid_cc"]
    flags = ["--standalone", "--nproc_per_node", str(processes), "-m", "fastreid_cc"]
    return [sys.executable, "-m", "torch.distributed.run", *flags, *line[3:]]


def run(data_root: Path, line: list[str], *, timeout: float = 600) -> subprocess.CompletedProcess:
    """Runs a command line to its end; output is text, stderr in stdout."""
    return subprocess.run(
        line,
        env=environment(data_root),
        cwd=ROOT,
        timeout=timeout,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
