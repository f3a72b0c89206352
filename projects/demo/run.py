"""The demo: untrained, colour histogram, label-free and supervised on the same generated people.

All rows are measured by the same protocol. The two trainings are the training script with two
config files, and nothing else, one core each. Writes outputs/demo/results.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainings import ROOT, Training, cores, run_all

CONFIGS = ROOT / "configs/demo"
os.environ.setdefault("FASTREID_DATASETS", str(ROOT / "datasets"))

import fastreid_cc.plugin  # noqa: F401  isort: skip  activates the plug-in
import numpy
import sklearn
import torch
import torchvision
from fastreid.config import get_cfg
from fastreid.data.build import _root
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.engine import DefaultTrainer
from fastreid.utils.logger import setup_logger
from histogram import evaluate_histograms
from tabulate import tabulate

from fastreid_cc import __version__
from fastreid_cc.plugin.loading.datasets import configure_from
from fastreid_cc.plugin.seeding import seed_globals

ROWS = {
    "untrained": "untrained network",
    "histogram": "best colour histogram, no learning",
    "label_free": "label-free (fastreid_cc)",
    "supervised": "supervised (stock fastreid)",
}


def configuration(name: str, output: Path) -> Any:
    """A demo config as fastreid reads it, for the rows that need no training."""
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"{name}.yml"))
    cfg.OUTPUT_DIR = str(output)
    cfg.freeze()
    return cfg


def untrained(cfg: Any) -> dict[str, float]:
    """The network as it is before the first step; what fastreid says of it goes into log.txt."""
    seed_globals(cfg.CC.SEED)
    consoles = [
        h for h in logging.getLogger("fastreid").handlers if type(h) is logging.StreamHandler
    ]
    for console in consoles:
        console.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, float] = DefaultTrainer.test(cfg, DefaultTrainer.build_model(cfg))
    for console in consoles:
        console.setLevel(logging.DEBUG)
    return found


def histogram(cfg: Any) -> dict[str, float]:
    """The best of several colour histograms, each image described alone."""
    data = DATASET_REGISTRY.get(cfg.DATASETS.TESTS[0])(root=_root)
    best = evaluate_histograms(data.query, data.gallery).best
    return {"mAP": best.mAP, "Rank-1": best.rank1}


def row(results: dict[str, float], seconds: float) -> dict[str, float]:
    """One row of the table."""
    return {
        "mAP": float(results["mAP"]),
        "rank1": float(results["Rank-1"]),
        "seconds": seconds,
    }


def timed(measure: Callable[[Any], dict[str, float]], cfg: Any) -> dict[str, float]:
    """A row that takes no training."""
    start = time.perf_counter()
    results = measure(cfg)
    return row(results, time.perf_counter() - start)


def run_seeds(seeds: range, output: Path, num_jobs: int) -> list[dict[str, Any]]:
    """All four rows of every seed; the trainings side by side."""
    cfg = configuration("label_free", output)
    configure_from(cfg)
    DATASET_REGISTRY.get(cfg.DATASETS.NAMES[0])(root=_root)  # drawn before the clock
    trainings = [
        Training(
            f"{name} seed {seed}",
            CONFIGS / f"{name}.yml",
            output / f"seed{seed}" / name,
            ("CC.SEED", str(seed)),
        )
        for seed in seeds
        for name in ("label_free", "supervised")
    ]
    colours = timed(histogram, cfg)
    found = run_all(trainings, num_jobs)
    runs = []
    for seed in seeds:
        cfg.defrost()
        cfg.CC.SEED = seed
        free, supervised = (found[f"{name} seed {seed}"] for name in ("label_free", "supervised"))
        runs.append(
            {
                "untrained": timed(untrained, cfg),
                "histogram": colours,
                "label_free": row(free, free["seconds"]),
                "supervised": row(supervised, supervised["seconds"]),
                "clusters": free["cc/num_clusters"],
                "ari": free["cc/ari"],
                "identities": cfg.CC.SYNTHETIC.TRAIN_IDS,
            }
        )
    return runs


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds under the stated keys, each seed beside them."""
    mean: dict[str, Any] = {
        row: {key: statistics.mean(run[row][key] for run in runs) for key in runs[0][row]}
        for row in ROWS
    }
    if len(runs) > 1:
        for row in ROWS:
            mean[row]["mAP_spread"] = statistics.stdev(run[row]["mAP"] for run in runs)
    for key in ("clusters", "ari", "identities"):
        mean[key] = statistics.mean(run[key] for run in runs)
    floor, ceiling = mean["untrained"]["mAP"], mean["supervised"]["mAP"]
    mean["recovered"] = (mean["label_free"]["mAP"] - floor) / (ceiling - floor)
    mean["versions"] = {
        "fastreid_cc": __version__,
        "fastreid": "1.4.0",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
    }
    mean["seeds"] = runs
    return mean


def table(results: dict[str, Any]) -> str:
    """The table people read."""
    lines = []
    for row, title in ROWS.items():
        entry = results[row]
        spread = f" ± {entry['mAP_spread']:.1f}" if "mAP_spread" in entry else ""
        lines.append(
            [
                title,
                f"{entry['mAP']:.1f}{spread}",
                f"{entry['rank1']:.1f}",
                f"{entry['seconds']:.0f}",
            ]
        )
    text = tabulate(lines, headers=["", "mAP", "Rank-1", "seconds"], disable_numparse=True)
    return (
        f"\n{text}\n\n{results['clusters']:.0f} clusters found for {results['identities']:.0f}"
        f" people (ARI {results['ari']:.2f}); label-free recovers {results['recovered']:.0%} of the"
        " way from untrained to supervised.\n"
    )


def main() -> None:
    """Runs the seeds, writes results.json and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="runs, seeded 1, 2, ...")
    parser.add_argument("--jobs", type=int, default=cores(), help="trainings at once")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs/demo")
    args = parser.parse_args()
    for name in ("seeds", "jobs"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} must be at least 1")
    args.output.mkdir(parents=True, exist_ok=True)
    setup_logger(str(args.output))
    results = summarise(run_seeds(range(1, args.seeds + 1), args.output, args.jobs))
    target = args.output / "results.json"
    target.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    print(f"Numbers: {target}")


if __name__ == "__main__":
    main()
