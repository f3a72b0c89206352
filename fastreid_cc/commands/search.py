"""searches numbers of a config without labels"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import boot
from ..config.evolution import Gene, Trial, append, best_of, propose, read_trials
from ..errors import BadConfig, ClearError, WrongUse, printable
from ..files import write_atomically
from ..labels.fitness import SHARES, criteria
from ._frame import at_least_1, make_parser, table

UNITS = {"s": 1, "m": 60, "h": 3600}
HONEST = (
    "No identity was read. Where it was measured, the fitness did not follow the hidden mAP, the"
    " share of\noutliers did (docs/search.md): compare the best with all genes at their upper end"
    " (trial 0) on\nwhatever labels you have."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "search",
        "Trains the config again and again with other values of the genes and keeps those whose "
        "features look best without labels: k-means clusters whose sizes follow Zipf's law. Ageing "
        "evolution; every trial is a line of OUT/trials.jsonl, and the same command goes on where "
        "it was stopped. Make the config short: a trial is a whole training.",
    )
    text = "YAML file, or a shipped config such as demo/methods/cc_adasp"
    made.add_argument("config", metavar="CONFIG", help=text)
    text = "a config key and its range, e.g. MODEL.LOSSES.AdaSP.SCALE 0:1; again for another"
    made.add_argument(
        "--gene", nargs=2, action="append", required=True, metavar=("KEY", "LOW:HIGH"), help=text
    )
    text = "time for all trials, earlier calls counted: 90m, 2h; looked at between trials"
    made.add_argument("--budget", type=seconds_of, required=True, metavar="TIME", help=text)
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the search")
    text = "clusters of the fitness, the same in all trials: about as many as you expect people"
    made.add_argument("--clusters", type=at_least_1, required=True, metavar="K", help=text)
    text = "exponent of Zipf's law; 0 = all people equally often, 1 = as words in a text"
    made.add_argument("--zipf", type=float, default=1.0, metavar="S", help=text)
    text = "how images are shared out: counted, by a Gaussian, or as published"
    made.add_argument("--shares", choices=SHARES, default="hard", help=text)
    text = "trainings of a trial, seeded 1, 2, ...; their mean counts"
    made.add_argument("--seeds", type=at_least_1, default=2, metavar="N", help=text)
    text = "trainings at once"
    made.add_argument("--jobs", type=at_least_1, default=1, metavar="N", help=text)
    made.add_argument(
        "--trials", type=at_least_1, metavar="N", help="end after so many (default: none)"
    )
    text = "seed of the evolution and of k-means"
    made.add_argument("--seed", type=int, default=0, metavar="N", help=text)
    text = "config keys on top of the file, for all trials"
    made.add_argument("pairs", nargs="*", metavar="KEY VALUE", help=text)
    return made


def seconds_of(text: str) -> float:
    """Seconds of "90m", "2h" or "45s"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; wanted e.g. 90m or 2h")
    return float(match[1]) * UNITS[match[2]]


def main(argv: list[str]) -> int:
    """Tries until the budget is spent; writes best.yml and table.txt after every trial."""
    args = parser().parse_intermixed_args(argv)
    genes = [Gene.of(key, text) for key, text in args.gene]
    if not math.isfinite(args.zipf) or args.zipf < 0 or args.seed < 0 or len(args.pairs) % 2:
        raise WrongUse("--zipf and --seed must be 0 or more; KEY VALUE come in pairs.")
    boot.activate()
    from ..config.shipped import find_config
    from ..plugin.offline.run_folder import read_config

    args.config = find_config(args.config)
    if "://" not in args.config:
        args.config = str(Path(args.config).expanduser().absolute())
    cfg = read_config(args.config, args.pairs)
    check(cfg, genes)
    check_images(args, cfg)
    claim(args, genes)
    file = args.out / "trials.jsonl"
    while True:
        trials = read_trials(file, genes)
        if trials:
            report(args, cfg, genes, trials)
        is_spent = sum(trial.seconds for trial in trials) >= args.budget
        if is_spent or (args.trials and len(trials) >= args.trials):
            break
        append(file, genes, run_trial(args, cfg, genes, trials))
        shutil.rmtree(args.out / f"trial{len(trials):04d}", ignore_errors=True)
    if trials:
        print(f"{(args.out / 'table.txt').read_text()}\n{HONEST}")
    return 0


def check(cfg: Any, genes: Sequence[Gene]) -> None:
    """Every gene is a number that the config uses, at both ends of its range.

    Raises:
        BadConfig: naming the key.
    """
    from ..config import all_keys, get_key, near_keys, validate, walk
    from ..limits import fault

    if len({gene.key for gene in genes}) < len(genes):
        raise WrongUse("A gene is named twice.")
    known = dict(walk(cfg))
    for gene in genes:
        if gene.key not in known:
            near = ", ".join(near_keys(gene.key, known))
            raise BadConfig(f"--gene {printable(gene.key)}: no such key. Near: {near}.")
        if not isinstance(get_key(cfg, gene.key), float):
            raise BadConfig(f"--gene {gene.key} holds {get_key(cfg, gene.key)!r}, no real number.")
        limits = all_keys()[gene.key].limits if gene.key in all_keys() else None
        for value in (gene.low, gene.high):
            if isinstance(limits, (str, tuple)) and (message := fault(gene.key, value, limits)):
                raise BadConfig(f"--gene: {message}")
        _, _, loss = gene.key.rpartition("MODEL.LOSSES.")
        name = loss.split(".")[0]
        stage = (*cfg.MODEL.LOSSES.NAME, *(cfg.CC.WARMUP.LOSSES if cfg.CC.WARMUP.EPOCHS else ()))
        if loss != gene.key and name not in stage:
            raise BadConfig(f"--gene {gene.key}: MODEL.LOSSES.NAME does not hold {name}.")
    if not cfg.CC.ENABLED:
        raise BadConfig("CC.ENABLED is False: a search trains without labels; set it True.")
    validate(cfg)


def check_images(args: argparse.Namespace, cfg: Any) -> None:
    """There are as many images as clusters; a generated data set is drawn, once for all trials."""
    from ..plugin.loading.datasets import configure_from
    from ..plugin.loading.target_images import collect_images

    configure_from(cfg)
    count = len(collect_images(cfg).paths)
    if count < args.clusters:
        raise WrongUse(f"--clusters {args.clusters}: there are only {count} images to learn from.")


def claim(args: argparse.Namespace, genes: Sequence[Gene]) -> None:
    """Makes the folder, or finds in it a search that is the same but for its budget.

    Raises:
        WrongUse: if it holds another one.
    """
    names = ("config", "pairs", "clusters", "zipf", "shares", "seeds", "seed")
    own = {name: getattr(args, name) for name in names}
    own["genes"] = [[gene.key, gene.low, gene.high] for gene in genes]
    file = args.out / "search.json"
    args.out.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        with write_atomically(file) as part:
            part.write_text(json.dumps(own, indent=2) + "\n")
        return
    try:
        found = json.loads(file.read_text())
    except ValueError:
        found = {}
    other = [name for name in own if not isinstance(found, dict) or found.get(name) != own[name]]
    if other:
        raise WrongUse(
            f"{printable(args.out)} holds another search: its {', '.join(other)} differ. Give"
            " another --out, or the same command to go on with it."
        )


def run_trial(
    args: argparse.Namespace, cfg: Any, genes: Sequence[Gene], trials: Sequence[Trial]
) -> Trial:
    """Trains the next genome with every seed and measures its features.

    A trial that was killed goes on from its checkpoints. One whose training fails has an infinite
    fitness, but the first, whose failure is the config's.
    """
    from ..parallel.trainings import run_all

    genome, parent = propose(genes, trials, seed=args.seed)
    folder = args.out / f"trial{len(trials):04d}"
    values = ", ".join(f"{g.key} {v:.3g}" for g, v in zip(genes, genome, strict=True))
    print(f"trial {len(trials)}: {values}", file=sys.stderr)
    start = time.monotonic()
    try:
        runs = [_training(args, cfg, genes, genome, folder, s) for s in range(1, args.seeds + 1)]
        todo = [run for run in runs if not (run.output / "model_final.pth").exists()]
        run_all(todo, min(args.jobs, len(todo)) or 1)
        figures = [_measured(args, run.output) for run in runs]
    except (RuntimeError, ClearError) as error:
        if not trials:
            raise ClearError(f"The first trial, all genes at their upper end: {error}") from error
        print(f"trial {len(trials)} failed: {error}", file=sys.stderr)
        return Trial(genome, math.inf, parent, seconds=time.monotonic() - start)
    if not trials:
        _keep_beginnings(args, cfg, genes, runs)
    mean = {
        name: float(np.mean([found[name] for found in figures]))
        for name in figures[0]
        if all(name in found for found in figures)
    }
    return Trial(genome, mean.pop("fitness"), parent, mean, time.monotonic() - start)


def _beginning(args: argparse.Namespace, cfg: Any, genes: Sequence[Gene], seed: int) -> Path | None:
    """The checkpoint of the epochs before the first labels that all trials share; None if none."""
    from ..config.beginnings import epochs_before_labels, shapes_beginning

    epochs = epochs_before_labels(cfg)
    if not 0 < epochs < cfg.SOLVER.MAX_EPOCH or any(shapes_beginning(cfg, g.key) for g in genes):
        return None
    return Path(args.out, "start", f"seed{seed}", f"model_{epochs - 1:04d}.pth")


def _training(
    args: argparse.Namespace,
    cfg: Any,
    genes: Sequence[Gene],
    genome: Sequence[float],
    folder: Path,
    seed: int,
) -> Any:
    from ..config.beginnings import epochs_before_labels
    from ..parallel.trainings import Training

    pairs = [*args.pairs, "CC.SEED", str(seed), "TEST.EVAL_PERIOD", str(10**6)]
    pairs += ["DATASETS.TESTS", "()", "CC.REPORT", "False"]
    for gene, value in zip(genes, genome, strict=True):
        pairs += [gene.key, repr(value)]
    start = _beginning(args, cfg, genes, seed)
    if start is not None and not start.exists():
        pairs += ["SOLVER.CHECKPOINT_PERIOD", str(epochs_before_labels(cfg))]
        start = None
    output = folder / f"seed{seed}"
    return Training(f"{folder.name} seed {seed}", args.config, output, tuple(pairs), start)


def _keep_beginnings(
    args: argparse.Namespace, cfg: Any, genes: Sequence[Gene], runs: Sequence[Any]
) -> None:
    """Takes the shared epochs out of the first trial's folder, which is removed."""
    for seed, run in enumerate(runs, 1):
        start = _beginning(args, cfg, genes, seed)
        if start is not None and (run.output / start.name).is_file():
            start.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.output / start.name, start.with_suffix(".part"))
            start.with_suffix(".part").replace(start)


def _measured(args: argparse.Namespace, run: Path) -> dict[str, float]:
    """Label-free criteria of a run's features."""
    from ..plugin.offline.run_features import training_features

    features, labels = training_features(run)
    how = {"clusters": args.clusters, "s": args.zipf, "shares": args.shares, "seed": args.seed}
    return criteria(features, labels=labels, **how)


def report(
    args: argparse.Namespace, cfg: Any, genes: Sequence[Gene], trials: Sequence[Trial]
) -> None:
    """Writes table.txt, best first, and best.yml."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.criteria))
    order = sorted(range(len(trials)), key=lambda i: trials[i].fitness)
    head = ["trial", "parent", "fitness", *names, *(gene.key for gene in genes)]
    rows = []
    for i in order:
        trial = trials[i]
        figures = [trial.criteria.get(name, math.nan) for name in names]
        cells = [f"{value:.3g}" for value in (trial.fitness, *figures, *trial.genome)]
        rows.append([i, "" if trial.parent < 0 else trial.parent, *cells])
    with write_atomically(args.out / "table.txt") as part:
        part.write_text(table([head, *rows]) + "\n")
    if (best := best_of(trials)) < 0:
        return
    import yaml

    from ..config import get_key

    values = {key: get_key(cfg, key) for key in args.pairs[::2]}
    values |= {gene.key: v for gene, v in zip(genes, trials[best].genome, strict=True)}
    tree: dict[str, Any] = {"_BASE_": args.config}
    for key, value in values.items():
        node = tree
        *path, leaf = key.split(".")
        for step in path:
            node = node.setdefault(step, {})
        node[leaf] = list(value) if isinstance(value, tuple) else value
    said = f"# By search, without labels: trial {best} of {len(trials)}, fitness"
    text = f"{said} {trials[best].fitness:.4g} (lower is better).\n{yaml.safe_dump(tree)}"
    with write_atomically(args.out / "best.yml") as part:
        part.write_text(text)
