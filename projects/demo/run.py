"""The demo: untrained, colour histogram, label-free and supervised on the same generated people.

All rows are measured by the same protocol; the two trainings are fastreid's own DefaultTrainer with
two config files, and nothing else. Writes outputs/demo/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
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
from fastreid.utils.file_io import PathManager
from fastreid.utils.logger import setup_logger
from tabulate import tabulate

from fastreid_cc import __version__
from fastreid_cc.data.histogram import evaluate_histograms
from fastreid_cc.plugin.datasets import configure_from
from fastreid_cc.plugin.hooks import seed_globals

ROWS = {
    "untrained": "untrained network",
    "histogram": "best colour histogram, no learning",
    "label_free": "label-free (fastreid_cc)",
    "supervised": "supervised (stock fastreid)",
}


def load(name: str, seed: int, output: Path) -> Any:
    """A demo config with this run's seed and folder."""
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / f"configs/demo/{name}.yml"))
    cfg.CC.SEED = seed
    cfg.OUTPUT_DIR = str(output / f"seed{seed}" / name)
    cfg.freeze()
    PathManager.mkdirs(cfg.OUTPUT_DIR)
    return cfg


def untrained(cfg: Any) -> dict[str, float]:
    """The network as it is before the first step."""
    seed_globals(cfg.CC.SEED)
    model = DefaultTrainer.build_model(cfg)
    return DefaultTrainer.test(cfg, model)


def train(cfg: Any) -> tuple[dict[str, float], Any]:
    """What a training script does: build, train, evaluate."""
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    return trainer.train(), trainer


def histogram(cfg: Any) -> dict[str, float]:
    """The best of several colour histograms, each image described alone."""
    configure_from(cfg)
    data = DATASET_REGISTRY.get(cfg.DATASETS.TESTS[0])(root=_root)
    best = evaluate_histograms(data.query, data.gallery).best
    return {"mAP": best.mAP, "Rank-1": best.rank1}


def run_seed(seed: int, output: Path) -> dict[str, Any]:
    """All four rows for one seed."""
    label_free, supervised = (load(name, seed, output) for name in ("label_free", "supervised"))
    found: dict[str, Any] = {}

    def record(row: str, start: float, results: dict[str, float]) -> None:
        found[row] = {
            "mAP": float(results["mAP"]), "rank1": float(results["Rank-1"]),
            "seconds": time.perf_counter() - start,
        }  # fmt: skip

    configure_from(label_free)
    DATASET_REGISTRY.get(label_free.DATASETS.NAMES[0])(root=_root)  # drawn before the clock
    start = time.perf_counter()
    record("untrained", start, untrained(label_free))
    start = time.perf_counter()
    record("histogram", start, histogram(label_free))
    start = time.perf_counter()
    results, trainer = train(label_free)
    record("label_free", start, results)
    found["clusters"] = trainer.storage.latest()["cc/num_clusters"][0]
    found["ari"] = trainer.storage.latest()["cc/ari"][0]
    found["identities"] = label_free.CC.SYNTHETIC.TRAIN_IDS
    start = time.perf_counter()
    record("supervised", start, train(supervised)[0])
    return found


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
        "fastreid_cc": __version__, "fastreid": "1.4.0", "python": platform.python_version(),
        "torch": torch.__version__, "torchvision": torchvision.__version__,
        "numpy": numpy.__version__, "scikit-learn": sklearn.__version__,
    }  # fmt: skip
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
    parser.add_argument("--output", type=Path, default=ROOT / "outputs/demo")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds} must be at least 1")
    args.output.mkdir(parents=True, exist_ok=True)
    setup_logger(str(args.output))
    results = summarise([run_seed(seed, args.output) for seed in range(1, args.seeds + 1)])
    target = args.output / "results.json"
    target.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    print(f"Numbers: {target}")


if __name__ == "__main__":
    main()
