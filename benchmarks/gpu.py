"""Checks and times everything on a CUDA device; stage by stage, each in a process of its own.

    python benchmarks/gpu.py [STAGE ...] [--output outputs/gpu] [--device cuda] [--small]

labels     a GPU's labels are the CPU's bytes, for every search and distance
search     seconds and memory of the exact search, against the plain product
steps      ResNet-50 and CLIP ViT-B at batch 256 in float16 and bfloat16, beside a plain loop and
           the published procedure
skipped    a step that the loss scale skips writes nothing
extract    30,000 generated images
resume     killed, then gone on with
processes  NCCL, one process a device; two on one device
flat       memory over 50 epochs
tests      those marked gpu

A stage that is done is not run again; one may take 8 minutes. Writes OUTPUT/<stage>.json and
results.json, and prints a table. `--small --device cpu` tries the command where there is no CUDA.
Needs neither network nor faiss. Exit status 1 if a stage failed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests" / "plugin")]
import fastreid_cc.plugin  # noqa: E402, F401  isort: skip  activates the plug-in
import numpy as np  # noqa: E402
import torch  # noqa: E402
from fastreid.config import get_cfg  # noqa: E402
from fastreid.engine import DefaultTrainer  # noqa: E402
from fastreid.modeling import build_model  # noqa: E402
from fastreid.utils.events import EventStorage  # noqa: E402
from labels import planted  # noqa: E402
from losses import MOVES  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from fastreid_cc.labeling.neighbors.exact import ExactKNN  # noqa: E402
from fastreid_cc.labeling.pseudo_labeler import PseudoLabeler  # noqa: E402
from fastreid_cc.memories.cluster import ClusterMemory  # noqa: E402
from fastreid_cc.plugin.compat.required.mixed_precision import (  # noqa: E402
    AnyDeviceAMPTrainer,
    use_bfloat16,
)
from fastreid_cc.registry import DISTANCES, NEIGHBORS  # noqa: E402

MINUTES = 8
Found = dict[str, Any]


def wait(device: str) -> float:
    """Seconds, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(device: str) -> float:
    """Largest memory in GiB since the last call; 0 on a CPU."""
    if device != "cuda":
        return 0.0
    found = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return round(found, 2)


def seconds(work: Callable[[], Any], device: str) -> float:
    """Of one call."""
    start = wait(device)
    work()
    return wait(device) - start


# ---- labels -----------------------------------------------------------------------------------


def labels(device: str, small: bool) -> Found:
    """Neighbours and labels on the device against the CPU's, byte for byte."""
    images, size = (400, 32) if small else (6000, 256)
    features, _ = planted(images, size, images // 20, 1.0)
    features[images // 2 :][:200] = features[:200]  # ties
    cameras = np.arange(images) % 4
    found: Found = {}
    for name in NEIGHBORS.names():
        for precision in ("float32", "bfloat16") if name == "exact" else ("",):
            search = NEIGHBORS.get(name)(**({"precision": precision} if precision else {}))
            key = f"{name} {precision}".strip()
            try:
                here, there = search(features, 30), search(features.to(device), 30)
            except ImportError:
                found[key] = "not run: no faiss"
                continue
            same = np.array_equal(here.indices, there.indices)
            found[key] = bool(same and np.array_equal(here.similarity, there.similarity))
    for name in ("jaccard", "ca_jaccard", "cosine"):
        distance = DISTANCES.get(name)
        here, there = (
            PseudoLabeler(distance=distance())(part, cameras=cameras, progress=False).labels
            for part in (features, features.to(device))
        )
        found[f"labels by {name}"] = bool(np.array_equal(here, there))
    assert all(value is not False for value in found.values()), found
    return found


def search(device: str, small: bool) -> Found:
    """Exact search and a whole labelling, and the plain product of the same format as the floor."""
    sizes = ((12936, 2048), (32621, 2048), (1_000_000, 256))
    found: Found = {}
    for images, size in ((600, 64),) if small else sizes:
        features = planted(images, size, max(2, images // 17), 1.0)[0].to(device)
        peak(device)
        took = seconds(lambda: ExactKNN()(features, 30), device)  # noqa: B023
        memory = peak(device)
        low = features.bfloat16() if device == "cuda" else features
        block = max(1, min(images, 2**28 // images))
        starts = range(0, images, block)
        some = starts[:: max(1, len(starts) // 50)]

        def product() -> None:
            for at in some:  # noqa: B023
                low[at : at + block] @ low.t()  # noqa: B023

        product()
        floor = seconds(product, device) * len(starts) / len(some)
        row = {"k-NN s": round(took, 2), "product s": round(floor, 3), "GiB": memory}
        if images < 10**5:
            labeler = PseudoLabeler()
            stages = labeler(features, progress=False).seconds
            row["labelling s"] = round(sum(stages.values()), 2)
        found[f"{images} x {size}"] = row
    return found


# ---- steps ------------------------------------------------------------------------------------


def recipe(name: str, device: str, small: bool) -> Any:
    """A shipped recipe from random weights."""
    cfg = get_cfg()
    cfg.merge_from_file(f"Market1501/{name}")
    pairs: list[Any] = ["MODEL.DEVICE", device, "MODEL.BACKBONE.PRETRAIN", False]
    pairs += ["SOLVER.AMP.ENABLED", True]
    if small:
        pairs += ["INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]]
        pairs += ["SOLVER.IMS_PER_BATCH", 32]
        if name == "cc_R50":
            pairs += ["MODEL.BACKBONE.DEPTH", "18x", "MODEL.BACKBONE.FEAT_DIM", 512]
        else:
            sizes = {"DEPTH": 1, "WIDTH": 32, "HEADS": 2, "EMBED_DIM": 32}
            pairs += [x for k, v in sizes.items() for x in (f"MODEL.BACKBONE.CLIP.{k}", v)]
            pairs += ["MODEL.BACKBONE.FEAT_DIM", 64]
    cfg.merge_from_list([str(value) for value in pairs])
    return cfg


class Repeated:
    """A loader that gives one batch for ever."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return ({**self.batch, "images": self.batch["images"].clone()} for _ in itertools.count())


def batch_of(cfg: Any, clusters: int, device: str) -> dict[str, Tensor]:
    """A batch of 16 images a cluster, of noise."""
    count = cfg.SOLVER.IMS_PER_BATCH
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, *cfg.INPUT.SIZE_TRAIN), generator=generator)
    ids = torch.randperm(clusters, generator=generator)[: count // 16].repeat_interleave(16)
    index = torch.arange(count)
    batch = {"images": images.float(), "targets": ids, "indices": index, "camids": index % 6}
    return {key: value.to(device) for key, value in batch.items()}


def trainer_of(cfg: Any, device: str, low: bool, clusters: int) -> AnyDeviceAMPTrainer:
    """fastreid's own trainer of a step, with a filled cluster memory."""
    model = build_model(cfg).train()
    optimizer, wrapper = DefaultTrainer.build_optimizer(cfg, model)
    rows = F.normalize(torch.randn(clusters, cfg.MODEL.BACKBONE.FEAT_DIM)).to(device)
    memory = ClusterMemory().to(device)
    memory.reset(rows, torch.arange(clusters, device=device))
    model.step.memory = memory
    loader = Repeated(batch_of(cfg, clusters, device))
    trainer = AnyDeviceAMPTrainer(model, loader, optimizer, wrapper)
    trainer.iter = 0
    if low:
        use_bfloat16(trainer)
    return trainer


def ours(trainer: AnyDeviceAMPTrainer) -> None:
    """The step that a run takes: trainer, then memory."""
    trainer.run_step()
    trainer.model.step.memory.update(trainer.model.step.take_last_batch())


def loop(trainer: AnyDeviceAMPTrainer, rows: Tensor, peer: bool, device: str) -> None:
    """The same network and optimizer by hand: classifier `rows`, or as the authors publish it."""
    model, optimizer, batch = trainer.model, trainer.optimizer, next(iter(trainer.data_loader))
    scaler, dtype = trainer.grad_scaler, trainer.amp_dtype
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        features = model.backbone(model.preprocess_image(batch))
        embedding = F.normalize(model.heads(features)["embedding"])
        loss = F.cross_entropy(embedding @ rows.T / 0.05, batch["targets"])
    optimizer.zero_grad()
    (scaler.scale(loss) if scaler else loss).backward()
    if scaler:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()
    if peer:
        with torch.no_grad():
            MOVES["all"](rows, embedding.detach().float(), batch["targets"])


def steps(device: str, small: bool) -> Found:
    """Milliseconds a step, median of 20: ours, a plain loop, the published procedure."""
    found: Found = {}
    clusters, turns = (64, 2) if small else (700, 20)
    formats = (False, True) if device == "cuda" else (False,)  # a CPU has one
    for name, low in itertools.product(("cc_R50", "cc_CLIP-B16"), formats):
        cfg = recipe(name, device, small)
        trainer = trainer_of(cfg, device, low, clusters)
        rows = trainer.model.step.memory.rows.clone()
        work = {
            "ours": lambda: ours(trainer),  # noqa: B023
            "plain loop": lambda: loop(trainer, rows, False, device),  # noqa: B023
            "published": lambda: loop(trainer, rows, True, device),  # noqa: B023
        }
        row: Found = {}
        times: dict[str, list[float]] = {key: [] for key in work}
        with EventStorage():
            peak(device)
            ours(trainer)
            row["GiB"] = peak(device)
            for turn, (key, step) in itertools.product(range(turns + 1), work.items()):
                took = seconds(step, device)
                if turn:  # the first warms up
                    times[key].append(took)
        row |= {f"{key} ms": round(1e3 * float(np.median(t)), 1) for key, t in times.items()}
        row["over plain loop"] = round(row["ours ms"] / row["plain loop ms"], 3)
        found[f"{name} {str(trainer.amp_dtype).removeprefix('torch.')}"] = row
    return found


def skipped(device: str, small: bool) -> Found:
    """A real label-free run whose first steps overflow: weights and rows stay, then both move."""
    if device != "cuda":
        return {"not run": "float16 with a loss scale needs CUDA"}
    import tempfile

    cfg = get_cfg()
    cfg.merge_from_file("quick/usl_tiny")
    with tempfile.TemporaryDirectory() as folder:
        pairs = ["OUTPUT_DIR", folder, "MODEL.DEVICE", device, "SOLVER.AMP.ENABLED", True]
        pairs += ["CC.WARMUP.EPOCHS", 0, "SOLVER.MAX_EPOCH", 1, "DATASETS.TESTS", "()"]
        cfg.merge_from_list([str(value) for value in pairs])
        trainer = DefaultTrainer(cfg)
        inner = trainer._trainer
        inner.grad_scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40, growth_interval=10**6)
        seen: list[tuple[float, bool, bool]] = []
        state: dict[str, Tensor] = {}
        run_step, after = inner.run_step, trainer.after_step

        def watched() -> None:
            state["w"] = next(trainer.model.parameters()).detach().clone()
            state["rows"] = trainer.model.step.memory.rows.clone()
            state["scale"] = torch.tensor(inner.grad_scaler.get_scale())
            run_step()

        def after_step() -> None:
            after()
            moved = not torch.equal(state["w"], next(trainer.model.parameters()))
            wrote = not torch.equal(state["rows"], trainer.model.step.memory.rows)
            fell = inner.grad_scaler.get_scale() < float(state["scale"])
            seen.append((fell, moved, wrote))

        inner.run_step, trainer.after_step = watched, after_step
        trainer.train()
    fell = [entry for entry in seen if entry[0]]
    assert fell and all(not moved and not wrote for _, moved, wrote in fell), seen
    assert all(moved and wrote for scale_fell, moved, wrote in seen if not scale_fell), seen
    return {"skipped steps": len(fell), "other steps": len(seen) - len(fell)}


# ---- whole runs -------------------------------------------------------------------------------


def extract(device: str, small: bool) -> Found:
    """Images a second of a ResNet-50 at 256x128 through the loader, with 8 workers."""
    from fastreid.data.datasets import DATASET_REGISTRY

    from fastreid_cc.plugin.loading.datasets import configure_from
    from fastreid_cc.plugin.loading.extract import extract_features

    cfg = recipe("cc_R50", device, small)
    cfg.merge_from_list(
        ["DATALOADER.NUM_WORKERS", str(0 if small else min(8, os.cpu_count() or 1))]
    )
    cfg.DATASETS.NAMES = ("SyntheticReID",)
    configure_from(cfg)
    data = DATASET_REGISTRY.get("SyntheticReID")(root=str(ROOT / "datasets"))
    paths = list(
        itertools.islice(itertools.cycle(i[0] for i in data.train), 60 if small else 30_000)
    )
    images = SimpleNamespace(paths=paths, cameras=np.zeros(len(paths), np.int64))
    model = build_model(cfg)
    took = seconds(lambda: extract_features(cfg, model, images), device)
    return {"images": len(paths), "seconds": round(took, 1), "images/s": round(len(paths) / took)}


def tiny(folder: Path, device: str, *flags: str, launcher: tuple[str, ...] = ()) -> list[str]:
    """Command of a quick run on the device; options of a script go before KEY VALUE."""
    start = [sys.executable, "-m", *(launcher or ("fastreid_cc", "train"))]
    pairs = ["MODEL.DEVICE", device, "OUTPUT_DIR", str(folder), "SOLVER.CHECKPOINT_PERIOD", "1"]
    return [*start, "--config-file", "quick/usl_tiny", *flags, *pairs]


def resume(device: str, small: bool) -> Found:
    """A run killed after its second epoch and gone on with, beside one that was not."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name, "whole"), Path(name, "broken")
        subprocess.run(tiny(whole, device), check=True, capture_output=True)
        with subprocess.Popen(tiny(broken, device), stdout=subprocess.DEVNULL) as process:
            while not (broken / "model_0001.pth").exists() and process.poll() is None:
                time.sleep(0.1)
            process.kill()
        killed = not (broken / "model_final.pth").exists()
        subprocess.run(tiny(broken, device, "--resume"), check=True, capture_output=True)
        a, b = (torch.load(run / "model_final.pth", map_location="cpu") for run in (whole, broken))
    gaps = [
        (a["model"][k].double() - b["model"][k].double()).abs().max().item() for k in a["model"]
    ]
    same = bool(np.array_equal(a["cc"]["labels"], b["cc"]["labels"]))
    assert killed, "the run had ended before it was killed"
    return {"killed": killed, "labels equal": same, "largest weight difference": max(gaps)}


def processes(device: str, small: bool) -> Found:
    """torchrun: one process a device, and two on one device."""
    import tempfile

    count = torch.cuda.device_count() if device == "cuda" else 2
    found: Found = {}
    for number, visible in {(count, None), (2, "0")}:
        key = f"{number} on {'one device' if visible else 'all devices'}"
        if device != "cuda" and visible:
            continue
        environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": visible} if visible else {})}
        launcher = ("torch.distributed.run", "--standalone", f"--nproc-per-node={number}")
        with tempfile.TemporaryDirectory() as folder:
            command = tiny(Path(folder), device, launcher=(*launcher, "-m", "fastreid_cc", "train"))
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            is_done = Path(folder, "model_final.pth").exists()
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line]
        found[key] = True if is_done else "; ".join(lines[-2:]) or f"exit {done.returncode}"
    first = f"{count} on all devices"
    assert found[first] is True, found
    return found


def flat(device: str, small: bool) -> Found:
    """Memory, threads and files over 50 epochs (benchmarks/soak.py)."""
    command = [sys.executable, "-m", "fastreid_cc", str(ROOT / "benchmarks/soak.py")]
    command += ["--device", device, "--epochs", "15" if small else "50"]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 or small, "\n".join(lines[-8:]) + done.stderr[-500:]
    return {line.split()[2]: line.split(maxsplit=3)[3] for line in lines if "early" in line}


def tests(device: str, small: bool) -> Found:
    """The tests marked gpu."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=--strict-markers", "tests/contracts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    return {"pytest": done.stdout.strip().splitlines()[-1].strip("= ")}


STAGES = (labels, search, steps, skipped, extract, resume, processes, flat, tests)


def run(stage: str, args: argparse.Namespace) -> Found:
    """A stage in a process of its own; what it found is written before this returns."""
    path = args.output / f"{stage}.json"
    if path.exists() and "failed" not in (found := json.loads(path.read_text())):
        return dict(found)
    command = [sys.executable, __file__, stage, "--inside", "--device", args.device]
    command += ["--output", str(args.output), *(["--small"] if args.small else [])]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, timeout=60 * MINUTES, capture_output=True, text=True)
        fault = done.stderr.strip()[-1500:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        fault = f"took longer than {MINUTES} minutes"
    found = {"failed": fault} if fault else json.loads(path.read_text())
    found["seconds in all"] = round(time.perf_counter() - start, 1)
    path.write_text(json.dumps(found, indent=2) + "\n")
    return found


def main() -> int:
    """Runs the stages, writes and prints what they found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [stage.__name__ for stage in STAGES]
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(names) + "; all")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs/gpu", help="for the figures")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what is checked")
    parser.add_argument("--small", action="store_true", help="sizes of seconds: tries the command")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.stages) - set(names):
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu --small tries the command without one")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.inside:
        found = globals()[args.stages[0]](args.device, args.small)
        (args.output / f"{args.stages[0]}.json").write_text(json.dumps(found, indent=2) + "\n")
        return 0
    name = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or "CPU"
    results: Found = {"device": name, "torch": torch.__version__}
    print(f"{name}, torch {torch.__version__}")
    for stage in args.stages or names:
        results[stage] = run(stage, args)
        for key, value in results[stage].items():
            text = (
                ", ".join(f"{k} {v}" for k, v in value.items())
                if isinstance(value, dict)
                else value
            )
            print(f"{stage:<10} {key:<28} {text}", flush=True)
    (args.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return int(any("failed" in results[stage] for stage in args.stages or names))


if __name__ == "__main__":
    sys.exit(main())
