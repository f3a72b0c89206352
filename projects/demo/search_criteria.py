"""The table of docs/search.md: do label-free criteria follow the hidden mAP?

    python projects/demo/search_criteria.py

Trains `configs/demo/search/weights.yml` with 16 random genomes of loss weights, and with all
weights 1, in a world where all people are seen equally often and in one where they follow Zipf's
law; prints the rank correlation of each criterion with hidden mAP and ARI over the genomes. Then
the genome that the fitness likes best is trained in full, with seeds that it was not chosen on,
beside all weights 1. A call that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from adaptation import differences
from compare import cell, is_trained
from scipy.stats import rankdata
from tabulate import tabulate
from trainings import ROOT, Training, cores, read_metrics, run_all

from fastreid_cc.config.evolution import Gene
from fastreid_cc.files import write_atomically
from fastreid_cc.labels.fitness import criteria
from fastreid_cc.plugin.offline.run_features import training_features

Genome = tuple[float, ...]

CONFIG = ROOT / "configs/demo/search/weights.yml"
#: CC.SYNTHETIC.TAIL of each world.
WORLDS = {"equal": 0.0, "Zipf": 1.0}
LOSSES = ("MemoryContrast", "BatchHardTriplet", "AdaSP", "SupCon", "MultiSimilarity")
GENES = tuple(Gene(f"MODEL.LOSSES.{name}.SCALE", 0.0, 1.0) for name in LOSSES)
SEEDS, FRESH_SEEDS, FULL_EPOCHS = (1, 2), (3, 4, 5), 14
PEOPLE = 80
ONES = "ones"
#: Criterion -> +1 where more is better, -1 where less is.
CRITERIA = {
    "KL, counts, s 0": -1,
    "KL, counts, s 1": -1,
    "KL as published, s 1": -1,
    "silhouette": 1,
    "stability": 1,
    "rank": 1,
    "outliers": -1,
}
#: The fitness that chooses in each world: its own law.
CHOOSES = {"equal": "KL, counts, s 0", "Zipf": "KL, counts, s 1"}
#: Correlations below it choose nothing.
DECORATIVE = 0.4


def genomes(count: int) -> dict[str, Genome]:
    """Name -> weights: all 1, then random ones."""
    low, high = (np.array([getattr(gene, end) for gene in GENES]) for end in ("low", "high"))
    drawn = np.random.default_rng(0).uniform(low, high, (count, len(GENES))).tolist()
    random = {f"genome{i:02d}": tuple(values) for i, values in enumerate(drawn, 1)}
    return {ONES: tuple(high.tolist()), **random}


def training(
    world: str, name: str, genome: Genome, seed: int, output: Path, more: Sequence[str] = ()
) -> Training:
    """One training, from the warm-up of `ones` of its world and seed, which has one of its own."""
    options = ["CC.SEED", str(seed), "CC.SYNTHETIC.TAIL", str(WORLDS[world]), *more]
    for gene, value in zip(GENES, genome, strict=True):
        options += [gene.key, repr(value)]
    start = None if name == ONES else output / world / ONES / f"seed{seed}" / "model_0004.pth"
    if start is None:
        options += ["SOLVER.CHECKPOINT_PERIOD", "5"]
    folder = output / world / name / f"seed{seed}"
    return Training(f"{world} {name} seed {seed}", CONFIG, folder, tuple(options), start)


def measure(folder: Path, people: int) -> None:
    """Writes hidden figures and label-free criteria of a run once, and then thins its folder.

    Args:
        folder: OUTPUT_DIR.
        people: clusters of the criteria.
    """
    file = folder / "measured.json"
    if not file.is_file():
        features, labels = training_features(folder)
        found = criteria(features, clusters=people, labels=labels)
        published = criteria(features, clusters=people, s=1.0, shares="paper")["fitness"]
        hidden = read_metrics(folder)
        row = {
            "mAP": hidden["mAP"],
            "ARI": hidden["cc/ari"],
            "KL, counts, s 0": found["kl_uniform"],
            "KL, counts, s 1": found["kl_zipf"],
            "KL as published, s 1": published,
            **{name: found[name] for name in ("silhouette", "stability", "rank", "outliers")},
        }
        with write_atomically(file) as part:
            part.write_text(json.dumps(row, indent=2) + "\n")
    for checkpoint in folder.glob("*.pth"):
        if checkpoint.name != "model_0004.pth" or folder.parent.name != ONES:
            checkpoint.unlink()  # 270 MB a run; the warm-up of `ones` is what others start from


def measured(folder: Path) -> dict[str, float]:
    """What `measure` found."""
    found: dict[str, float] = json.loads((folder / "measured.json").read_text())
    return found


def run(trainings: Sequence[Training], jobs: int) -> None:
    """Trains and measures what is not measured yet, some at a time so that the disk stays free."""
    todo = [one for one in trainings if not (one.output / "measured.json").is_file()]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for first in range(0, len(todo), 4 * jobs):
            some = todo[first : first + 4 * jobs]
            run_all([one for one in some if not is_trained(one.output)], jobs)
            list(pool.map(measure, [one.output for one in some], repeat(PEOPLE)))


def figures(world: str, names: Sequence[str], output: Path) -> dict[str, np.ndarray]:
    """Figure -> its mean over the seeds, one value for each genome."""
    rows = [[measured(output / world / name / f"seed{s}") for s in SEEDS] for name in names]
    return {
        key: np.array([np.mean([seed[key] for seed in row]) for row in rows]) for key in rows[0][0]
    }


def correlation(x: np.ndarray, y: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Spearman's rho and the ends of its 95 % interval by bootstrap over the pairs.

    Draws in which one of the two is constant tell nothing; nan where it is in all.
    """
    rows = np.random.default_rng(0).integers(len(x), size=(draws, len(x)))
    rows = np.concatenate([[np.arange(len(x))], rows])
    a, b = (rankdata(values[rows], axis=1) - (len(x) + 1) / 2 for values in (x, y))
    length = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    told = length > 0
    found = (a * b).sum(1)[told] / length[told]
    if not told[0]:
        return math.nan, math.nan, math.nan
    low, high = np.quantile(found[1:], (0.025, 0.975))
    return float(found[0]), float(low), float(high)


def agreement(world: str, names: Sequence[str], output: Path) -> tuple[float, float, float]:
    """Rank correlation of the mAP of the genomes with one seed and with the other.

    What one seed says of the other is about what any criterion can reach.
    """
    first, second = (
        np.array([measured(output / world / name / f"seed{seed}")["mAP"] for name in names])
        for seed in SEEDS
    )
    return correlation(first, second)


def correlations(found: dict[str, dict[str, np.ndarray]]) -> list[list[str]]:
    """A line for each criterion: rho with mAP and ARI in each world, more = it chooses better."""
    lines = []
    for name, sign in CRITERIA.items():
        line, follows = [name], True
        for columns in found.values():
            for hidden in ("mAP", "ARI"):
                rho, low, high = correlation(sign * columns[name], columns[hidden])
                line.append(f"{rho:+.2f} ({low:+.2f} to {high:+.2f})")
                follows &= rho >= DECORATIVE  # never of nan
        lines.append([*line, "" if follows else "decorative"])
    return lines


def winners(found: dict[str, dict[str, np.ndarray]], names: Sequence[str]) -> dict[str, str]:
    """World -> the genome that its fitness likes best, the first of equals."""
    return {world: names[int(columns[CHOOSES[world]].argmin())] for world, columns in found.items()}


def full(chosen: dict[str, str], every: dict[str, Genome], output: Path) -> Iterator[Training]:
    """The full trainings of winners and of all weights 1."""
    more = ("SOLVER.MAX_EPOCH", str(FULL_EPOCHS))
    for name, (world, best), seed in product((ONES, "best"), chosen.items(), FRESH_SEEDS):
        genome = every[ONES if name == ONES else best]
        yield training(world, name, genome, seed, output / "full", more)


def report(found: Any, chosen: Any, every: Any, output: Path) -> str:
    """Markdown: correlations, then the winners beside all weights 1."""
    heads = [f"{world}: {hidden}" for world in found for hidden in ("mAP", "ARI")]
    text = [tabulate(correlations(found), ["criterion", *heads, ""], tablefmt="github"), ""]
    for world, columns in found.items():
        low, high = columns["mAP"].min(), columns["mAP"].max()
        names = [name for name in every if name != ONES]
        rho, least, most = agreement(world, names, output)
        text.append(
            f"{world}: mAP of the genomes {low:.1f} to {high:.1f}; of one seed with the other"
            f" {rho:+.2f} ({least:+.2f} to {most:+.2f})."
        )
    lines = []
    for world, best in chosen.items():
        ones, own = (
            [measured(output / "full" / world / name / f"seed{s}")["mAP"] for s in FRESH_SEEDS]
            for name in (ONES, "best")
        )
        weights = " ".join(f"{value:.2f}" for value in every[best])
        lines.append([world, "all 1", cell(ones), "", ""])
        lines.append([world, weights, cell(own), *differences(own, ones)])
    heads = ["world", " ".join(LOSSES), "mAP", "over all 1", "mean"]
    return "\n".join([*text, "", tabulate(lines, heads, tablefmt="github", disable_numparse=True)])


def main() -> None:
    """Trains, measures, writes results.json and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--genomes", type=int, default=16, help="random ones")
    parser.add_argument("--jobs", type=int, default=cores(), help="trainings at once")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs/search")
    args = parser.parse_args()
    every = genomes(args.genomes)
    for is_first in (True, False):  # the others start from the first one's warm-up
        run(
            [
                training(world, name, every[name], seed, args.output)
                for world, name, seed in product(WORLDS, every, SEEDS)
                if (name == ONES) == is_first
            ],
            args.jobs,
        )
    names = [name for name in every if name != ONES]
    found = {world: figures(world, names, args.output) for world in WORLDS}
    chosen = winners(found, names)
    trainings = list(full(chosen, every, args.output))
    half = len(trainings) // 2
    run(trainings[:half], args.jobs)
    run(trainings[half:], args.jobs)
    results = {
        "genomes": every,
        "winners": chosen,
        "figures": {
            world: {key: list(values) for key, values in columns.items()}
            for world, columns in found.items()
        },
    }
    (args.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(report(found, chosen, every, args.output))


if __name__ == "__main__":
    main()
