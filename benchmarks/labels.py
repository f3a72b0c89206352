"""Times label making against a plain dense form of the published algorithm, in one process.

    python benchmarks/labels.py [--images 12936] [--size 2048] [--identities 751] [--noise 1.0]
                                [--precision float32 bfloat16] [--repeat 3] [--threads N]
                                [--neighbors exact|cells|faiss_flat|faiss_ivf|faiss_hnsw]
                                [--share S] [--probes P] [--no-dense] [--device cpu|cuda]
                                [--features F.npy] [--cpu-time] [--json FILE]

Features are planted: an identity is a random direction, an image is that plus noise of equal length
(times `--noise`), both in `--size` dimensions; images of an identity are adjacent, as in a sorted
data set. Printed per procedure: seconds per stage, peak memory beyond the features, ratio to the
dense one, label agreement, and as the floor the plain product of all pairs of blocks (upper
triangle) in the same precision. "speed" is floor / k-NN.
`--cpu-time` counts processor seconds of the whole process instead of wall-clock, for a busy
machine: it tells work, not waiting.

The dense procedure is the algorithm as published (Zhong et al. 2017 in the form of Cluster
Contrast): a full product and selection for the k-NN, loops over images for the sets, N x N arrays
for the weights, their expansion and the distance, scikit-learn's DBSCAN on the dense matrix. It is
written from the formulas; the engine runs first, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreid_cc.labeling import pseudo_labeler
from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.kernels import num_threads, run_tasks
from fastreid_cc.labeling.neighbors.exact import ExactKNN
from fastreid_cc.labeling.pseudo_labeler import PseudoLabeler
from fastreid_cc.labeling.unit_rows import unit_rows
from fastreid_cc.labels.numbering import number_by_first_image
from fastreid_cc.registry import NEIGHBORS

CLOCK = {"now": time.perf_counter}
K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4
BLOCK = 1024


def planted(images: int, size: int, identities: int, noise: float, seed: int = 0) -> tuple:
    """(f32 [N, D] unit rows, i64 [N] identities, ascending)."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(identities, size, generator=generator)
    truth = torch.randint(identities, (images,), generator=generator).sort().values
    features = torch.empty(images, size)
    for at in range(0, images, 8192):
        part = slice(at, min(at + 8192, images))
        rows = centres[truth[part]]
        rows += noise * torch.randn(len(rows), size, generator=generator)
        features[part] = torch.nn.functional.normalize(rows)
    return features, truth.numpy()


class Peak:
    """Largest resident memory while it is entered, beyond that at entry; sampled every 2 ms."""

    def __enter__(self) -> Peak:
        self.page = os.sysconf("SC_PAGE_SIZE")
        self.base = self.most = self._now()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _now(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * self.page

    def _watch(self) -> None:
        while not self.done.wait(0.002):
            self.most = max(self.most, self._now())

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()
        self.most = max(self.most, self._now())

    @property
    def megabytes(self) -> float:
        """Largest minus first, in 10^6 bytes."""
        return (self.most - self.base) / 1e6


def floor_seconds(features: Tensor, low: bool, most_blocks: int = 200) -> float:
    """The plain product of the upper triangle of blocks, scaled up if there are very many."""
    rows = features.bfloat16() if low else features
    starts = range(0, len(rows), BLOCK)
    pairs = [(a, b) for a in starts for b in starts if a <= b]
    some = pairs[:: max(1, len(pairs) // most_blocks)]
    scratch = threading.local()

    def multiply(a: int, b: int) -> None:
        if not hasattr(scratch, "out"):
            scratch.out = torch.empty(BLOCK, BLOCK, dtype=rows.dtype)
        left, right = rows[a : a + BLOCK], rows[b : b + BLOCK]
        torch.mm(left, right.t(), out=scratch.out[: len(left), : len(right)])

    start = CLOCK["now"]()
    run_tasks([lambda a=a, b=b: multiply(a, b) for a, b in some])  # type: ignore[misc]
    return (CLOCK["now"]() - start) * len(pairs) / len(some)


def engine(features: Tensor, search: Any) -> tuple[np.ndarray, dict[str, float]]:
    """Labels and seconds per stage."""
    labeler = PseudoLabeler(neighbors=search, clusterer=DBSCAN(eps=EPS, min_samples=MIN_SAMPLES))
    found = labeler(features, progress=False)
    return found.labels, found.seconds


def dense_ranks(features: Tensor) -> np.ndarray:
    """The k1 nearest by a full product and a full-width selection, block by block."""
    parts = [(part @ features.t()).topk(K1, dim=1).indices for part in features.split(1024)]
    return torch.cat(parts).numpy()


def dense_weights(features: Tensor, ranks: np.ndarray) -> np.ndarray:
    """V after query expansion, f32 [N, N]."""
    n, half = len(ranks), int(np.around(K1 / 2)) + 1

    def reciprocal(i: int, k: int) -> np.ndarray:
        forward = ranks[i, :k]
        return forward[(ranks[forward, :k] == i).any(axis=1)]

    full_sets = [reciprocal(i, K1) for i in range(n)]
    half_sets = [reciprocal(i, half) for i in range(n)]
    weights = np.zeros((n, n), np.float32)
    for i in range(n):
        expanded = full_sets[i]
        for c in full_sets[i]:
            common = np.intersect1d(half_sets[c], full_sets[i], assume_unique=True)
            if 3 * len(common) > 2 * len(half_sets[c]):
                expanded = np.append(expanded, half_sets[c])
        expanded = np.unique(expanded)
        squared = 2 - 2 * (features[torch.from_numpy(expanded)] @ features[i])
        weights[i, expanded] = torch.softmax(-squared, dim=0).numpy()
    averaged = np.zeros_like(weights)
    for i in range(n):
        averaged[i] = weights[ranks[i, :K2]].mean(axis=0)
    return averaged


def dense_distance(weights: np.ndarray) -> np.ndarray:
    """The Jaccard distance, f32 [N, N], by one inverted list per column."""
    n = len(weights)
    having = [np.flatnonzero(weights[:, c]) for c in range(n)]
    distance = np.zeros((n, n), np.float32)
    for i in range(n):
        shared = np.zeros(n, np.float32)
        for c in np.flatnonzero(weights[i]):
            shared[having[c]] += np.minimum(weights[i, c], weights[having[c], c])
        distance[i] = 1 - shared / (2 - shared)
    return np.maximum(distance, 0)


def dense(features: Tensor) -> tuple[np.ndarray, dict[str, float]]:
    """Labels and seconds per stage of the published algorithm."""
    from sklearn.cluster import DBSCAN as SklearnDBSCAN

    times = [CLOCK["now"]()]
    ranks = dense_ranks(features)
    times.append(CLOCK["now"]())
    distance = dense_distance(dense_weights(features, ranks))
    times.append(CLOCK["now"]())
    model = SklearnDBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="precomputed", n_jobs=-1)
    labels = number_by_first_image(model.fit_predict(distance))
    times.append(CLOCK["now"]())
    return labels, dict(zip(("neighbors", "distance", "cluster"), np.diff(times), strict=True))


def measured(
    name: str, work: Callable[[], tuple[np.ndarray, dict[str, float]]], repeat: int
) -> dict[str, Any]:
    """The fastest of `repeat` runs; the peak is of the first."""
    runs, labels = [], np.empty(0)
    with Peak() as peak:
        start = CLOCK["now"]()
        labels, stages = work()
        runs.append((CLOCK["now"]() - start, stages))
    for _ in range(repeat - 1):
        start = CLOCK["now"]()
        _, stages = work()
        runs.append((CLOCK["now"]() - start, stages))
    total, stages = min(runs, key=lambda run: run[0])
    return {
        "name": name,
        "total": total,
        "stages": {key: float(value) for key, value in stages.items()},
        "peak_mb": peak.megabytes,
        "clusters": int(labels.max(initial=-1)) + 1,
        "outliers": int((labels < 0).sum()),
        "labels": labels,
    }


def report(rows: list[dict[str, Any]], truth: np.ndarray | None) -> None:
    """Prints the table and fills in what compares rows."""
    from sklearn.metrics import adjusted_rand_score

    base = next((row for row in rows if row["name"] == "dense"), None)
    print(
        "procedure         total    k-NN   after   speed  after/k-NN   peak MB  clusters  outliers"
    )
    for row in rows:
        knn = row["stages"]["neighbors"]
        after = sum(row["stages"].values()) - knn
        row["after"] = after
        row["speed"] = row["floor"] / knn if row.get("floor") else None
        speed = f"{row['speed']:6.0%}" if row["speed"] else "     -"
        print(
            f"{row['name']:<14} {row['total']:8.2f} {knn:7.2f} {after:7.3f}  {speed}  "
            f"{after / knn:10.1%}  {row['peak_mb']:8.0f}  {row['clusters']:8,}  "
            f"{row['outliers']:8,}"
        )
        if base is not None and row is not base:
            base_after = sum(base["stages"].values()) - base["stages"]["neighbors"]
            row["ratio"] = base["total"] / row["total"]
            row["ratio_after"] = base_after / after
            row["agreement"] = float((row["labels"] == base["labels"]).mean())
            print(
                f"{'':<14} {row['ratio']:.1f}x faster in all, {row['ratio_after']:.0f}x after the "
                f"k-NN; {row['agreement']:.4%} of labels equal to the dense ones"
            )
        if truth is not None:
            row["ari"] = float(adjusted_rand_score(truth, row["labels"]))
            print(f"{'':<14} ARI against the planted identities {row['ari']:.4f}")


def arguments() -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser(description="Times label making.")
    made.add_argument("--images", type=int, default=12936)
    made.add_argument("--size", type=int, default=2048)
    made.add_argument("--identities", type=int, default=0, help="0: images / 17.2")
    made.add_argument("--noise", type=float, default=1.0)
    made.add_argument("--features", help=".npy to use instead of planted features")
    made.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    made.add_argument("--neighbors", default="exact", choices=NEIGHBORS.names())
    made.add_argument("--probes", type=int, default=0, help="of faiss_ivf")
    made.add_argument("--share", type=float, default=0.1, help="of cells")
    made.add_argument("--repeat", type=int, default=3)
    made.add_argument("--threads", type=int)
    made.add_argument("--device", default="cpu")
    made.add_argument("--no-dense", action="store_true")
    made.add_argument("--cpu-time", action="store_true")
    made.add_argument("--json")
    return made.parse_args()


def main() -> None:
    """Runs the benchmark."""
    args = arguments()
    if args.cpu_time:
        CLOCK["now"] = time.process_time
        pseudo_labeler.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[assignment]
    if args.threads:
        torch.set_num_threads(args.threads)
    truth = None
    if args.features:
        features = unit_rows(np.load(args.features))
    else:
        identities = args.identities or max(1, round(args.images / 17.2))
        features, truth = planted(args.images, args.size, identities, args.noise)
    warm = planted(2500, features.shape[1], 150, 1.0)[0]
    features, warm = features.to(args.device), warm.to(args.device)
    searches: list[tuple[str, Any]] = [
        (f"exact {name}", ExactKNN(precision=name)) for name in args.precision
    ]
    if args.neighbors == "faiss_ivf":
        searches = [("faiss_ivf", NEIGHBORS.get("faiss_ivf")(probes=args.probes))]
    elif args.neighbors == "cells":
        searches = [("cells", NEIGHBORS.get("cells")(share=args.share))]
    elif args.neighbors != "exact":
        searches = [(args.neighbors, NEIGHBORS.get(args.neighbors)())]
    print(
        f"{len(features):,} x {features.shape[1]}, {num_threads()} threads, load "
        f"{os.getloadavg()[0]:.1f}, torch {torch.__version__}, "
        + ("processor" if args.cpu_time else "wall-clock")
        + " seconds"
    )
    rows = []
    for name, search in searches:
        engine(warm, search)  # compiles
        row = measured(name, lambda search=search: engine(features, search), args.repeat)  # type: ignore[misc]
        if args.device == "cpu" and args.neighbors == "exact":
            row["floor"] = floor_seconds(features, name.endswith("bfloat16"))
        rows.append(row)
    if not args.no_dense:
        rows.append(measured("dense", lambda: dense(features.cpu()), 1))
    report(rows, truth)
    if args.json:
        kept = [{key: value for key, value in row.items() if key != "labels"} for row in rows]
        condition: dict[str, Any] = {
            "images": len(features),
            "size": features.shape[1],
            "threads": num_threads(),
        }
        condition["clock"] = "processor" if args.cpu_time else "wall"
        condition["load"] = os.getloadavg()[0]
        Path(args.json).write_text(json.dumps({**condition, "rows": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
