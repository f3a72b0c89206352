"""Compares configurations on the generated data set: every one over several seeds, one table.

    python projects/demo/compare.py configs/demo/methods/*.yml --seeds 3

Label-free configurations that differ only in what comes after the warm-up, or after the epochs of
source labels (memory, losses, labels), continue from the same beginning, seed by seed: the first
one's checkpoint is resumed, which gives the bytes that each would have reached alone with as many
threads.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trainings import ROOT, Training, cores, read_metrics, run_all

os.environ.setdefault("FASTREID_DATASETS", str(ROOT / "datasets"))

import fastreid_cc.plugin  # noqa: F401  isort: skip  activates the plug-in
from fastreid.config import get_cfg
from fastreid.data.build import _root
from fastreid.data.datasets import DATASET_REGISTRY
from tabulate import tabulate

from fastreid_cc.config import build_part
from fastreid_cc.config.beginnings import epochs_before_labels, shapes_beginning
from fastreid_cc.plugin.loading.datasets import configure_from
from fastreid_cc.registry import LOSSES

#: A difference is called real if its mean is above this many standard deviations of the seeds'.
REAL = 2.5
COLUMNS = {
    "transfer/mAP": "before the target",
    "mAP": "mAP",
    "Rank-1": "Rank-1",
    "cc/num_clusters": "clusters",
    "cc/ari": "ARI",
    "cc/ari_plain": "ARI, not refined",
    "cc/memory_accepted": "accepted",
}


def flat(node: Any, path: str = "") -> dict[str, Any]:
    """Full key -> value."""
    if not hasattr(node, "items"):
        return {path: node}
    return {
        key: value
        for name, child in node.items()
        for key, value in flat(child, f"{path}.{name}" if path else name).items()
    }


def read(config: Path) -> Any:
    """A configuration as fastreid reads it."""
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    return cfg


def beginning_of(cfg: Any) -> str:
    """All that shapes the epochs before the first labels, as text; empty if it cannot be shared.

    A loss with weights of its own is part of the network, and may learn from the sources.
    """
    if not epochs_before_labels(cfg):
        return ""
    ours = [build_part(cfg, LOSSES, name) for name in cfg.MODEL.LOSSES.NAME if name in LOSSES]
    if any(list(loss.parameters()) for loss in ours):
        return ""
    every = flat(cfg).items()
    kept = {k: v for k, v in every if k != "OUTPUT_DIR" and shapes_beginning(cfg, k)}
    return repr(sorted(kept.items()))


def plan(configs: list[Path], seeds: range, output: Path) -> list[list[Training]]:
    """Trainings from the beginning, then those that continue from another's; seed after seed."""
    stages: list[list[Training]] = [[], []]
    owners: dict[str, str] = {}
    found = list(map(read, configs))
    for seed, (config, cfg) in itertools.product(seeds, zip(configs, found, strict=True)):
        epochs = epochs_before_labels(cfg)
        owner = owners.setdefault(beginning_of(cfg) or config.stem, config.stem)
        folder = output / config.stem / f"seed{seed}"
        options, start = ["CC.SEED", str(seed)], None
        if owner != config.stem:
            start = output / owner / f"seed{seed}" / f"model_{epochs - 1:04d}.pth"
        elif epochs:
            options += ["SOLVER.CHECKPOINT_PERIOD", str(epochs)]
        training = Training(f"{config.stem} seed {seed}", config, folder, tuple(options), start)
        stages[start is not None].append(training)
    return stages


def is_trained(folder: Path) -> bool:
    """Whether an earlier call finished the training in a folder."""
    return (folder / "model_final.pth").exists()


def train(configs: list[Path], seeds: range, output: Path, jobs: int) -> None:
    """Runs what is not done yet, `jobs` trainings at a time."""
    for cfg in map(read, configs):
        configure_from(cfg)
        for name in {*cfg.DATASETS.NAMES, *cfg.DATASETS.TESTS, *cfg.CC.SOURCES.NAMES}:
            DATASET_REGISTRY.get(name)(root=_root)  # drawn once, before several ask
    for stage in plan(configs, seeds, output):
        run_all([t for t in stage if not is_trained(t.output)], jobs)


def summarise(configs: list[Path], seeds: range, output: Path) -> dict[str, Any]:
    """Config name -> column -> one value per seed."""
    runs = {
        config.stem: [read_metrics(output / config.stem / f"seed{seed}") for seed in seeds]
        for config in configs
    }
    return {
        name: {column: [run[column] for run in found if column in run] for column in COLUMNS}
        for name, found in runs.items()
    }


def cell(values: list[float]) -> str:
    """Mean ± sample standard deviation; two digits for shares, one for all else."""
    if not values:
        return ""
    digits = 2 if max(map(abs, values)) <= 1 else 1
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def differences(own: list[float], control: list[float]) -> tuple[str, str]:
    """("+1.0 +2.0 +3.0", "+2.0 ± 1.0, real") of values seed by seed; empty without a pair."""
    gains = [a - b for a, b in zip(own, control, strict=False)]
    if not gains:
        return "", ""
    each = " ".join(f"{gain:+.1f}" for gain in gains)
    if len(gains) < 2:
        return each, ""
    mean, spread = statistics.mean(gains), statistics.stdev(gains)
    verdict = "real" if abs(mean) > REAL * spread else "within the spread"
    return each, f"{mean:+.1f} ± {spread:.1f}, {verdict}"


def paper_difference(config: Path) -> str:
    """What a configuration's comments say after "Paper's difference:"; "" if nothing."""
    found = re.search(r"^# Paper's difference: (.*)$", config.read_text(), re.MULTILINE)
    return found[1] if found else ""


def table(results: dict[str, Any], papers: Mapping[str, str] = MappingProxyType({})) -> str:
    """Mean and sample standard deviation over the seeds, as Markdown.

    "against the first": difference of mAP to the first row, seed by seed. Seeds that share a
    warm-up rise and fall together, so it spreads less than the rows themselves.

    Args:
        results: of `summarise`.
        papers: row -> the difference that its paper gives, for a column of its own.
    """

    first = next(iter(results.values()))["mAP"]
    columns = [column for column in COLUMNS if any(row[column] for row in results.values())]
    lines = []
    for name, row in results.items():
        gains = differences(row["mAP"], first) if row["mAP"] is not first else ("", "")
        theirs = [papers.get(name, "")] if any(papers.values()) else []
        lines.append([name, *(cell(row[column]) for column in columns), *gains, *theirs])
    headers = ["", *(COLUMNS[column] for column in columns), "against the first", "mean"]
    headers += ["paper's difference"] if any(papers.values()) else []
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Runs what is not done yet, writes results.json and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("configs", type=Path, nargs="+", help="configuration files")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, seeded 1, 2, ...")
    parser.add_argument("--jobs", type=int, default=cores(), help="trainings at once")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs/compare")
    args = parser.parse_args()
    seeds = range(1, args.seeds + 1)
    train(args.configs, seeds, args.output, args.jobs)
    results = summarise(args.configs, seeds, args.output)
    (args.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results, {config.stem: paper_difference(config) for config in args.configs}))


if __name__ == "__main__":
    main()
