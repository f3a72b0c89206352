"""Trains a tiny data set for many label epochs and measures what a process may pile up.

    python -m fastreid_cc benchmarks/soak.py [--epochs 150] [--processes 1] [--workers 1]
                                             [--device cpu]
                                             [--patience 120] [--json FILE]

Every epoch extracts, labels and trains two steps; every tenth evaluates and saves. After each
epoch every process counts its resident memory, threads, open files and children. The means of an
early part of the run (epochs 20 to 50 of 150) and of its last fifth are compared: exit status 1 if
threads, files or children grew by more than one half, or memory by more than TOLERANCE; also if an
epoch takes longer than `--patience` seconds (then the stacks of all threads are shown).
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from fastreid.config import get_cfg
from fastreid.data import build as data_build
from fastreid.engine import DefaultTrainer, launch
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 5.0  # MiB
OPTIONS: tuple[object, ...] = (
    "MODEL.BACKBONE.NAME",
    "build_osnet_backbone",
    "MODEL.BACKBONE.DEPTH",
    "x0_25",
    "MODEL.BACKBONE.FEAT_DIM",
    128,
    "INPUT.SIZE_TRAIN",
    [32, 16],
    "INPUT.SIZE_TEST",
    [32, 16],
    "DATALOADER.NUM_INSTANCE",
    4,
    "SOLVER.IMS_PER_BATCH",
    16,
    "SOLVER.WARMUP_ITERS",
    0,
    "SOLVER.CHECKPOINT_PERIOD",
    10,
    "TEST.EVAL_PERIOD",
    10,
    "CC.ITERS_PER_EPOCH",
    2,
    "CC.WARMUP.EPOCHS",
    2,
    "CC.SYNTHETIC.TRAIN_IDS",
    8,
    "CC.SYNTHETIC.TEST_IDS",
    4,
    "CC.SYNTHETIC.IMAGES_PER_CAMERA",
    3,
    "CC.SYNTHETIC.HEIGHT",
    32,
    "CC.SYNTHETIC.WIDTH",
    16,
)


def census() -> dict[str, float]:
    """Resident memory in MiB, threads, open files and live children of this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text().split()
    tasks = Path("/proc/self/task")
    on_device = torch.cuda.memory_allocated() / 2**20 if torch.cuda.is_initialized() else 0.0
    return {
        "device": on_device,
        "MiB": int(status[status.index("VmRSS:") + 1]) / 1024,
        "threads": len(os.listdir(tasks)),
        "files": len(os.listdir("/proc/self/fd")),
        "children": sum(len(path.read_text().split()) for path in tasks.glob("*/children")),
    }


def train(folder: str, epochs: int, workers: int, patience: float, device: str) -> None:
    """Trains in this process, or its part of a job; writes FOLDER/census_<rank>.json."""
    data_build._root = folder
    counts: list[dict[str, float]] = []

    class Census(HookBase):
        def before_epoch(self) -> None:
            faulthandler.dump_traceback_later(patience, exit=True)
            self.start = time.perf_counter()

        def after_epoch(self) -> None:
            counts.append({**census(), "seconds": time.perf_counter() - self.start})

    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs/quick/usl_tiny.yml"))
    run = (
        "MODEL.DEVICE",
        device,
        "SOLVER.MAX_EPOCH",
        epochs,
        "DATALOADER.NUM_WORKERS",
        workers,
        "OUTPUT_DIR",
        folder,
    )
    cfg.merge_from_list([str(value) for value in (*OPTIONS, "MODEL.DEVICE", device, *run)])
    trainer = DefaultTrainer(cfg)
    trainer.register_hooks([Census()])
    trainer.train()
    faulthandler.cancel_dump_traceback_later()
    Path(folder, f"census_{comm.get_rank()}.json").write_text(json.dumps(counts))


def compare(counts: list[dict[str, float]]) -> tuple[dict[str, tuple[float, float]], bool]:
    """Means of the early and the last part by kind, and whether something grew."""
    epochs = len(counts)
    early, last = counts[epochs * 2 // 15 : epochs // 3], counts[epochs * 4 // 5 :]
    means = {key: (mean(c[key] for c in early), mean(c[key] for c in last)) for key in counts[0]}
    allowed = {"threads": 0.5, "files": 0.5, "children": 0.5, "MiB": TOLERANCE, "device": 1}
    return means, any(means[key][1] > means[key][0] + more for key, more in allowed.items())


def main() -> int:
    """Runs, prints the means, returns 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="loader processes of each")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds an epoch may take")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", help="write every epoch's counts to this file")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        launch(
            train,
            wanted.processes,
            dist_url="auto",
            args=(folder, wanted.epochs, wanted.workers, wanted.patience, wanted.device),
        )
        found: list[Any] = [
            json.loads(Path(folder, f"census_{rank}.json").read_text())
            for rank in range(wanted.processes)
        ]
    if wanted.json:
        Path(wanted.json).write_text(json.dumps(found))
    any_grew = False
    for rank, counts in enumerate(found):
        means, grew = compare(counts)
        any_grew |= grew
        for key, (before, after) in means.items():
            print(f"process {rank}  {key:<9} {before:8.2f} early  {after:8.2f} last")
    print("something grew" if any_grew else "nothing grew")
    return int(any_grew)


if __name__ == "__main__":
    sys.exit(main())
