"""Times one memory + loss step (forward, backward, update) against plain restatements.

    python benchmarks/losses.py [--device cpu] [--batch 64 256 1024] [--clusters 700 3000]
                                [--r50] [--repeat 9] [--cpu-time] [--json FILE] [--images 12936]

Three procedures, same numbers, timed in turn in one process:
- ours: `MemoryContrast` on `ClusterMemory`, then `update`;
- published: what the authors' code does: logits and gradient of the batch as matrix products, the
  memory moved by a Python loop over samples (hard: per cluster, one cosine at a time);
- per_sample: every sample on its own: its logits, its loss, its gradient, its update.

`--cpu-time` counts processor time instead of wall-clock: for a busy machine, with one thread.

`--images` times instead the steps of GCL and SCL over a memory of that many rows, beside plain
contrast; the refinement of all images before clustering (without its neighbour search); and what a
labelling pays for the reach of the rows.

`--r50` adds the time of a ResNet-50 training step (256x128, last stride 1, Adam), measured at batch
`--r50-batch` and scaled linearly, and the share that memory and loss take of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastreid_cc.losses.base import Loss
from fastreid_cc.losses.graph_correlation import GraphCorrelation
from fastreid_cc.losses.memory_contrast import MemoryContrast
from fastreid_cc.losses.selective_contrast import SelectiveContrast
from fastreid_cc.memories.cluster import ClusterMemory
from fastreid_cc.memories.selective import SelectiveMemory, reach_of
from fastreid_cc.structures import Batch, KnnGraph

TEMPERATURE, MOMENTUM = 0.05, 0.1


def move_all(rows: Tensor, features: Tensor, targets: Tensor) -> None:
    """Each sample in batch order."""
    for x, y in zip(features, targets, strict=True):
        rows[y] = MOMENTUM * rows[y] + (1 - MOMENTUM) * x
        rows[y] /= rows[y].norm()


def move_hard(rows: Tensor, features: Tensor, targets: Tensor) -> None:
    """Per cluster, the sample least similar to its row, one cosine at a time."""
    members: dict[int, list[Tensor]] = {}
    for x, y in zip(features, targets.tolist(), strict=True):
        members.setdefault(y, []).append(x)
    for y, xs in members.items():
        cosines = [(x @ rows[y]).item() for x in xs]
        hardest = xs[cosines.index(min(cosines))]
        rows[y] = MOMENTUM * rows[y] + (1 - MOMENTUM) * hardest
        rows[y] /= rows[y].norm()


MOVES = {"all": move_all, "hard": move_hard}


def published_step(rows: Tensor, x: Tensor, targets: Tensor, rule: str) -> Tensor:
    """Batched logits and gradient, per-sample update."""
    x.grad = None
    features = F.normalize(x)
    F.cross_entropy(features @ rows.T / TEMPERATURE, targets).backward()
    with torch.no_grad():
        MOVES[rule](rows, features.detach(), targets)
    return x.grad  # type: ignore[return-value]


def per_sample_step(rows: Tensor, x: Tensor, targets: Tensor, rule: str) -> Tensor:
    """One sample at a time throughout."""
    x.grad = None
    for i in range(len(x)):
        feature = F.normalize(x[i], dim=0)
        logits = rows @ feature / TEMPERATURE
        (F.cross_entropy(logits[None], targets[i : i + 1]) / len(x)).backward()
    with torch.no_grad():
        MOVES[rule](rows, F.normalize(x), targets)
    return x.grad  # type: ignore[return-value]


def wall() -> float:
    """Seconds, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


Clock = Callable[[], float]


def timed(steps: dict[str, Callable[[], Any]], repeat: int, clock: Clock) -> dict[str, float]:
    """Median milliseconds of each step; the steps take turns, so that load hits all alike."""

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeat + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if turn:  # the first turn warms up
                seconds[name].append(clock() - start)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def compare(
    B: int, C: int, D: int, K: int, rule: str, repeat: int, device: str, clock: Clock
) -> dict[str, Any]:
    """Times of the three procedures on one batch, after checking that they agree."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, D, generator=generator).to(device).requires_grad_()
    rows = F.normalize(torch.randn(C, D, generator=generator)).to(device)
    chosen = torch.randperm(C, generator=generator)[: B // K]
    targets = chosen.repeat_interleave(K)[torch.randperm(B, generator=generator)].to(device)
    none = torch.zeros_like(targets)
    batch = Batch(x, targets, none, none)
    memory = ClusterMemory(temperature=TEMPERATURE, momentum=MOMENTUM, update=rule).to(device)
    memory.reset(rows, torch.arange(C, device=device))
    loss = MemoryContrast()
    slow = {name: rows.clone() for name in ("published", "per_sample")}

    def contrast() -> None:
        x.grad = None
        loss(batch, memory).backward()

    def ours() -> None:
        contrast()
        memory.update(batch)

    ours()
    expected = x.grad.clone()  # type: ignore[union-attr]
    torch.testing.assert_close(published_step(slow["published"], x, targets, rule), expected)
    torch.testing.assert_close(per_sample_step(slow["per_sample"], x, targets, rule), expected)
    for other in slow.values():
        torch.testing.assert_close(other, memory.rows, atol=2e-6, rtol=0)

    features = F.normalize(x.detach())
    times = timed(
        {
            "ours": ours,
            "published": lambda: published_step(slow["published"], x, targets, rule),
            "per_sample": lambda: per_sample_step(slow["per_sample"], x, targets, rule),
            "our_update": lambda: memory.update(batch),
            "loop_update": lambda: MOVES[rule](slow["published"], features, targets),
        },
        repeat,
        clock,
    )
    return {
        "device": device,
        "batch": B,
        "clusters": C,
        "rule": rule,
        **{f"{k}_ms": round(v, 3) for k, v in times.items()},
        "step_vs_published": round(times["published"] / times["ours"], 1),
        "step_vs_per_sample": round(times["per_sample"] / times["ours"], 1),
        "update_vs_loop": round(times["loop_update"] / times["our_update"], 1),
    }


def graph_and_selection(
    B: int, N: int, D: int, K: int, repeat: int, device: str, clock: Clock
) -> dict[str, Any]:
    """Times of a step of each loss, and of what they ask of a labelling."""
    generator = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(N, D, generator=generator)).to(device)
    x = torch.randn(B, D, generator=generator).to(device).requires_grad_()
    index = (torch.arange(B) // K * K + torch.arange(B) % K).to(device)
    batch = Batch(x, index // K, index, torch.zeros_like(index))
    memory = SelectiveMemory(temperature=TEMPERATURE).to(device)
    memory.reset(rows, torch.arange(N, device=device) // K)
    graph = GraphCorrelation(feature_size=D).to(device)
    near = np.random.default_rng(0).integers(0, N, (N, graph.neighbors_to_refine))
    found = KnnGraph(near, np.zeros(near.shape, np.float32))

    def step(loss: Loss) -> None:
        x.grad = None
        loss(batch, memory).backward()

    times = timed(
        {
            "contrast": lambda: step(MemoryContrast()),
            "graph_correlation": lambda: step(graph),
            "selective_contrast": lambda: step(SelectiveContrast()),
            "selective_update": lambda: memory.update(batch),
            "refinement": lambda: graph.refine_features(rows, found),
            "reach": lambda: reach_of(rows, memory.reciprocal),
        },
        repeat,
        clock,
    )
    sizes = {"device": device, "batch": B, "images": N, "dim": D}
    return {**sizes, **{f"{k}_ms": round(v, 1) for k, v in times.items()}}


def r50_step_ms(B: int, repeat: int, device: str, clock: Clock) -> float:
    """Milliseconds of a ResNet-50 training step on B images of 256x128, last stride 1."""
    from torchvision.models import resnet50

    model = resnet50(weights=None).to(device)
    model.fc = torch.nn.Identity()
    model.layer4[0].conv2.stride = model.layer4[0].downsample[0].stride = (1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3.5e-4)
    images = torch.randn(B, 3, 256, 128, device=device)

    def step() -> None:
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    return timed({"r50": step}, repeat, clock)["r50"]


def main() -> None:
    """Prints a table; `--json` writes the same."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--clusters", type=int, nargs="+", default=[700, 3000])
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--instances", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--r50", action="store_true")
    parser.add_argument("--r50-batch", type=int, default=16)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else wall

    results = []
    if args.images:
        for B in args.batch:
            sizes = (B, args.images, args.dim, args.instances)
            row = graph_and_selection(*sizes, args.repeat, args.device, clock)
            print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        return
    for B in args.batch:
        for C in args.clusters:
            for rule in MOVES:
                sizes = (B, C, args.dim, args.instances)
                row = compare(*sizes, rule, args.repeat, args.device, clock)
                results.append(row)
                print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "clock": "cpu" if args.cpu_time else "wall",
        "dim": args.dim,
        "instances": args.instances,
        "results": results,
    }
    if args.r50:
        ms = r50_step_ms(args.r50_batch, 2, args.device, clock)
        report["r50"] = {"batch": args.r50_batch, "step_ms": round(ms, 1)}
        print(f"ResNet-50 step at batch {args.r50_batch}: {ms:.0f} ms; scaled linearly:")
        for row in results:
            row["share_of_r50_step"] = row["ours_ms"] / (ms * row["batch"] / args.r50_batch)
            print(
                f"  batch {row['batch']} clusters {row['clusters']} {row['rule']}: "
                f"{100 * row['share_of_r50_step']:.2f} % of the step"
            )
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
