"""Labels and training over several processes and nodes; every node is a torchrun of its own.

    python benchmarks/scaling.py labels [--images 300000] [--size 256] [--processes 4] [--nodes 1]
                                        [--neighbors exact|cells] [--precision bfloat16]
                                        [--threads N] [--noise 1.0] [--json FILE]
    python benchmarks/scaling.py train [--folder DIR]

`labels` makes pseudo-labels of planted features by `--processes` processes of `--nodes` nodes that
meet by torchrun's rendezvous on this machine, and prints seconds per stage, and for each process
its processor seconds and memory: the peak beyond the features, and all that it ever held. The
digest tells labels apart: it is the same for any number of processes.

`train` trains the quick config for two epochs of two steps twice: by two nodes of one process each,
with an OUTPUT_DIR of their own as on machines without a common disk, and by one node of two
processes; then it compares the weights byte by byte. Exit status 1 if they differ. On one machine
this shows that two rendezvous, groups by machine and gathered labels work, not how fast a network
is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.pseudo_labeler import PseudoLabeler
from fastreid_cc.registry import NEIGHBORS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from labels import EPS, MIN_SAMPLES, Peak, planted  # noqa: E402

#: Over quick/usl_tiny: seconds on one core.
TINY = (
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "build_osnet_backbone"),
    *("MODEL.BACKBONE.DEPTH", "x0_25", "MODEL.BACKBONE.FEAT_DIM", "128"),
    *("MODEL.BACKBONE.PRETRAIN", "False", "INPUT.SIZE_TRAIN", "[32, 16]"),
    *("INPUT.SIZE_TEST", "[32, 16]", "DATALOADER.NUM_WORKERS", "0", "DATALOADER.NUM_INSTANCE", "4"),
    *("SOLVER.IMS_PER_BATCH", "16", "SOLVER.MAX_EPOCH", "2", "SOLVER.WARMUP_ITERS", "0"),
    *("TEST.EVAL_PERIOD", "100", "CC.ITERS_PER_EPOCH", "2", "CC.WARMUP.EPOCHS", "0"),
    *("CC.SYNTHETIC.TRAIN_IDS", "8", "CC.SYNTHETIC.TEST_IDS", "4", "CC.SYNTHETIC.CAMERAS", "2"),
    *("CC.SYNTHETIC.IMAGES_PER_CAMERA", "3", "CC.SYNTHETIC.HEIGHT", "32"),
    *("CC.SYNTHETIC.WIDTH", "16", "CC.DISTANCE.JACCARD.K1", "8", "CC.DISTANCE.JACCARD.K2", "2"),
    *("CC.CLUSTER.DBSCAN.MIN_SAMPLES", "2", "CC.SYNTHETIC.SEED", "7"),
)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_nodes(lines: list[list[str]], per_node: int) -> list[subprocess.Popen]:
    """One torchrun for each line, which it runs in `per_node` processes; all are one job."""
    meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{free_port()}"]
    meeting += ["--rdzv_id", "scaling", "--local_addr", "127.0.0.1"]
    flags = ["--nnodes", str(len(lines)), "--nproc_per_node", str(per_node), *meeting]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *flags, *line], env=environment
        )
        for line in lines
    ]


def run_nodes(lines: list[list[str]], per_node: int) -> None:
    """Runs a job to its end; where a node fails the others are ended.

    Raises:
        SystemExit: if a node fails.
    """
    nodes = start_nodes(lines, per_node)
    try:
        while any(node.poll() is None for node in nodes):
            if any(node.poll() not in (None, 0) for node in nodes):
                break
            time.sleep(0.1)
    finally:
        for node in nodes:
            if node.poll() is None:
                node.terminate()
    if any(node.wait() for node in nodes):
        raise SystemExit(f"a node failed: exit statuses {[node.returncode for node in nodes]}")


def label(args: argparse.Namespace) -> None:
    """One process of `labels`; the first prints and writes."""
    dist.init_process_group("gloo")
    torch.set_num_threads(args.threads)
    features, truth = planted(args.images, args.size, max(1, args.images // 17), args.noise)
    options: dict[str, Any] = {} if args.neighbors == "cells" else {"precision": args.precision}
    labeler = PseudoLabeler(
        neighbors=NEIGHBORS.get(args.neighbors)(**options),
        clusterer=DBSCAN(eps=EPS, min_samples=MIN_SAMPLES),
        distributed=True,
    )
    labeler(planted(2500, args.size, 150, 1.0)[0], progress=False)  # compiles
    dist.barrier()
    start, processor = time.perf_counter(), time.process_time()
    with Peak() as peak:
        found = labeler(features, progress=False)
    own = {
        "processor_s": time.process_time() - processor,
        "peak_mb": peak.megabytes,
        "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "digest": hashlib.sha256(found.labels.tobytes()).hexdigest()[:12],
    }
    result: dict[str, Any] = {
        "images": args.images,
        "size": args.size,
        "processes": dist.get_world_size(),
        "nodes": args.nodes,
        "threads": args.threads,
        "neighbors": args.neighbors,
        "precision": options.get("precision", ""),
        "load": os.getloadavg()[0],
        "seconds": time.perf_counter() - start,
        "stages": found.seconds,
        "clusters": found.num_clusters,
        "outliers": found.num_outliers,
    }
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    if dist.get_rank() == 0:
        report(result | {"each": everyone}, truth, found.labels, args.json)
    dist.destroy_process_group()


def report(result: dict[str, Any], truth: np.ndarray, labels: np.ndarray, to: str) -> None:
    """Prints a result, and writes it where asked."""
    from sklearn.metrics import adjusted_rand_score

    digests = {each["digest"] for each in result["each"]}
    assert len(digests) == 1, f"labels differ between processes: {digests}"
    result["ari"] = float(adjusted_rand_score(truth, labels))
    stages = ", ".join(f"{name} {took:.1f}" for name, took in result["stages"].items())
    print(
        f"{result['images']:,} x {result['size']}, {result['processes']} process(es) of"
        f" {result['nodes']} node(s), {result['threads']} thread(s) each, {result['neighbors']}"
        f" {result['precision']}, load {result['load']:.1f}\n"
        f"{result['seconds']:.1f} s by the clock ({stages}); {result['clusters']:,} clusters,"
        f" {result['outliers']:,} outliers, ARI {result['ari']:.3f}, labels {digests.pop()}"
    )
    print("process  processor s  peak MB  resident MB")
    for rank, each in enumerate(result["each"]):
        print(
            f"{rank:7}  {each['processor_s']:11.1f}  {each['peak_mb']:7.0f}"
            f"  {each['resident_mb']:11.0f}"
        )
    if to:
        Path(to).write_text(json.dumps(result, indent=1) + "\n")


def train(folder: Path) -> None:
    """Two nodes against two processes of one node.

    Raises:
        SystemExit: if their weights differ.
    """
    os.environ.setdefault("FASTREID_DATASETS", str(folder / "datasets"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    line = ["-m", "fastreid_cc", "train", "--config-file", "quick/usl_tiny", *TINY, "OUTPUT_DIR"]
    start = time.perf_counter()
    run_nodes([[*line, str(folder / f"node{rank}")] for rank in (0, 1)], 1)
    middle = time.perf_counter()
    run_nodes([[*line, str(folder / "one")]], 2)
    took = middle - start, time.perf_counter() - middle
    apart, together = (weights_of(folder / name / "model_final.pth") for name in ("node0", "one"))
    differ = [name for name, one in together.items() if not torch.equal(one, apart[name])]
    print(
        f"two nodes of one process: {took[0]:.0f} s, one node of two: {took[1]:.0f} s;"
        f" {len(differ)} of {len(together)} weights differ"
    )
    print("written by the second node:", sorted(p.name for p in (folder / "node1").glob("*")))
    if differ or apart.keys() != together.keys():
        raise SystemExit(1)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The network of a checkpoint."""
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return found


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line; `worker` is what torchrun starts."""
    made = argparse.ArgumentParser(description="Labels and training over processes and nodes.")
    made.add_argument("what", choices=("labels", "train", "worker"))
    made.add_argument("--images", type=int, default=300_000)
    made.add_argument("--size", type=int, default=256)
    made.add_argument("--processes", type=int, default=4, help="of all nodes together")
    made.add_argument("--nodes", type=int, default=1)
    made.add_argument("--neighbors", default="exact", choices=("exact", "cells"))
    made.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    made.add_argument("--noise", type=float, default=1.0)
    made.add_argument("--threads", type=int, default=0, help="of a process; 0: its share of cores")
    made.add_argument("--folder", type=Path, help="of train; a temporary one without")
    made.add_argument("--json", default="")
    args = made.parse_args(words)
    if args.processes % args.nodes:
        made.error(f"--processes {args.processes} must be a multiple of --nodes {args.nodes}")
    args.threads = args.threads or max(1, (os.cpu_count() or 1) // args.processes)
    return args


def main() -> None:
    """Runs a stage."""
    args = arguments()
    if args.what == "worker":
        label(args)
    elif args.what == "labels":
        words = ["worker", *sys.argv[2:], "--threads", str(args.threads)]
        line = [str(Path(__file__).resolve()), *words]
        run_nodes([line] * args.nodes, args.processes // args.nodes)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            train(args.folder or Path(temporary))


if __name__ == "__main__":
    main()
