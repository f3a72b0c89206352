"""One recipe on real folders: the checkpoint as it comes, label-free, and with the labels.

    python benchmarks/folders.py DATA_ROOT WEIGHTS [--output logs/folders] [--sets pku37 ...]
                                 [--seeds 1 2 3] [--folds 0 1 2] [--diagonal] [--rows label-free]
                                 [--trial NAME] [--change KEY VALUE ...] [--both KEY VALUE ...]

DATA_ROOT holds the folders pku37, coil20, eth80 and nyala, WEIGHTS is an OSNet x0.25. Every set is
trained by configs/OwnImages/cc_osnet_x0_25.yml; only CC.FOLDER differs, and the synthetic world is
drawn, not read. Folds are numbered from 0; `--diagonal` pairs the i-th seed with the i-th fold. The
supervised row learns by cross-entropy and a triplet loss from the same images, in as many steps of
as many images. Trainings run one at a time and in processes of their own, and one that has ended is
not repeated. Each row goes into `results.csv`, the mean of each set is printed. A trial is the
recipe with some keys changed, `--both` changes the supervised row too (a size).

The share of the gap is (label-free - start) / (supervised - start), in mAP; ARI and the number of
clusters are those of the last labelling, of the images trained on.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import trained

from fastreid_cc import boot
from fastreid_cc.config.shipped import find_config, resolve

CONFIG = "OwnImages/cc_osnet_x0_25"
ALWAYS = [
    *("CC.OVERWRITE", "True", "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"),
    *("SOLVER.CHECKPOINT_PERIOD", "1000", "TEST.EVAL_PERIOD", "1000", "CC.EVAL_BEFORE", "True"),
]
ROWS = ("label-free", "supervised")
#: What the names of each set mean: keys of CC.FOLDER.
SETS: dict[str, dict[str, object]] = {
    "pku37": {
        "camera": r"/(\d+)_\d+\.png$",
        "identity": "folder:0",
        "query_cameras": ("01",),
        "gallery_cameras": ("02",),
    },
    "coil20": {
        "camera": r"__(\d+)\.png$",
        "camera_sectors": (72, 4),
        "identity": r"^(obj\d+)__",
        "test_include": "^obj(8|9|10)__",
        "measure": "leave-one-out",
        "apart": "camera",
    },
    "eth80": {
        "camera": r"[-](\d{3})\.jpg$",
        "camera_sectors": (360, 4),
        "identity": "folder:0",
        "test_include": "^[a-z]+_[79]/",
        "measure": "leave-one-out",
        "apart": r"[-](\d{3})-\d+\.jpg$",
    },
    "nyala": {
        "identity": "folder:0",
        "include": "_leftphoto",
        "test_include": "^test.*_leftphoto",
        "measure": "leave-one-out",
        "apart": r"/(\d+)_",
    },
    "synthetic": {},
}
#: What makes a supervised training of the recipe's keys.
SUPERVISED = [
    *("CC.ENABLED", "False", "CC.SEED_SUPERVISED", "True", "CC.ITERS_PER_EPOCH", "0"),
    *("MODEL.META_ARCHITECTURE", "Baseline", "MODEL.HEADS.NAME", "EmbeddingHead"),
    *("MODEL.HEADS.CLS_LAYER", "Linear", "DATALOADER.SAMPLER_TRAIN", "NaiveIdentitySampler"),
    *("MODEL.LOSSES.NAME", "('CrossEntropyLoss','TripletLoss')"),
    *("MODEL.LOSSES.CE.EPSILON", "0.1", "MODEL.LOSSES.TRI.MARGIN", "0.3"),
]


@dataclass(frozen=True)
class Run:
    """One training: a set, its fold, a seed, and a row of the table."""

    set: str
    fold: int
    seed: int
    row: str

    @property
    def folder(self) -> str:
        """Below the output folder."""
        return f"{self.set}-fold{self.fold}-seed{self.seed}-{self.row}"


def options(data: Path, name: str, fold: int) -> dict[str, object]:
    """Keys of CC.FOLDER; pku37 is tested on its 12 first, 12 next or 13 last people."""
    found = {"root": str((data / name).resolve()), **SETS[name]}
    if name == "pku37":
        people = sorted(path.name for path in (data / name).iterdir() if path.is_dir())
        tested = (people[:12], people[12:24], people[24:])[fold]
        found["test_include"] = f"^({'|'.join(tested)})/"
    return found


def words_of(args: argparse.Namespace, run: Run) -> list[str]:
    """The words after `python -m fastreid_cc train`, but for OUTPUT_DIR."""
    words = ["--config-file", CONFIG, *ALWAYS, "CC.SEED", str(run.seed)]
    words += ["MODEL.BACKBONE.PRETRAIN_PATH", str(args.weights.resolve())]
    if run.set == "synthetic":
        names = "('SyntheticReID',)"
        words += ["DATASETS.NAMES", names, "DATASETS.TESTS", names]
    else:
        for key, value in options(args.data, run.set, run.fold).items():
            words += [f"CC.FOLDER.{key.upper()}", str(value)]
    words += args.both
    if run.row == "supervised":
        words += [*SUPERVISED, *_supervised_schedule(args, words)]
    else:
        words += args.change
    return words


def _supervised_schedule(args: argparse.Namespace, words: list[str]) -> list[str]:
    """As many steps as the label-free row has, in fastreid's epochs of one pass over the images."""
    from fastreid.config import get_cfg
    from fastreid.data import build as data_build
    from fastreid.data.datasets import DATASET_REGISTRY

    from fastreid_cc.plugin.loading.datasets import configure_from

    cfg = get_cfg()
    cfg.merge_from_file(str(resolve(find_config(CONFIG))))
    cfg.merge_from_list([*words[2:], *args.change])
    configure_from(cfg)
    train = DATASET_REGISTRY.get(cfg.DATASETS.NAMES[0])(root=data_build._root).train
    people, batch = len({item[1] for item in train}), cfg.SOLVER.IMS_PER_BATCH
    epochs = round(cfg.CC.ITERS_PER_EPOCH * cfg.SOLVER.MAX_EPOCH / max(1, len(train) // batch))
    instances = cfg.DATALOADER.NUM_INSTANCE
    while people < batch // instances:  # coil20 has seven objects to learn from
        instances *= 2
    steps = [round(epochs * step / cfg.SOLVER.MAX_EPOCH) for step in cfg.SOLVER.STEPS]
    return [
        *("SOLVER.MAX_EPOCH", str(epochs), "SOLVER.STEPS", str(steps)),
        *("DATALOADER.NUM_INSTANCE", str(instances)),
    ]


def train(args: argparse.Namespace, run: Run) -> Path:
    """The folder of the ended run; trains it unless it is there."""
    folder = Path(args.output / args.trial / run.folder)
    if not trained.ended(folder):
        trained.train(folder, words_of(args, run), f"{args.trial} {run.folder}")
    return folder


def figures(folder: Path) -> dict[str, float]:
    """The last value of every scalar of a run, first where it is said before training."""
    found: dict[str, float] = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        found |= json.loads(line)
    return found


@dataclass(frozen=True)
class Row:
    """A line of results.csv; figures that a row does not have are empty."""

    trial: str
    set: str
    fold: int
    seed: int
    row: str
    map_start: float | None
    map: float
    rank1: float
    kept_start: float | None
    clusters: float | None
    ari: float | None
    changed: str


def rows_of(args: argparse.Namespace, runs: list[Run]) -> Iterator[Row]:
    """One row for each run."""
    for run in runs:
        found = figures(train(args, run))
        changed = shlex.join([*args.both, *(args.change if run.row == "label-free" else [])])
        yield Row(
            args.trial,
            **asdict(run),
            map_start=found.get("start/mAP"),
            map=found["mAP"],
            rank1=found["Rank-1"],
            kept_start=found.get("kept_start"),
            clusters=found.get("cc/num_clusters"),
            ari=found.get("cc/ari"),
            changed=changed,
        )


def write(path: Path, rows: list[Row]) -> None:
    """Adds rows to the CSV, in place of older ones of the same training."""
    kept: dict[tuple[str, ...], dict[str, object]] = {}
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as stream:
            kept = {_key(line): dict(line) for line in csv.DictReader(stream)}
    for row in rows:
        line = {
            name: "" if value is None else f"{value:.4g}" if isinstance(value, float) else value
            for name, value in asdict(row).items()
        }
        kept[_key(line)] = line
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(kept.values())


def _key(line: dict[str, object]) -> tuple[str, ...]:
    return tuple(str(line[name]) for name in ("trial", "set", "fold", "seed", "row"))


def share_of_gap(start: float, free: float, supervised: float) -> float:
    """How much of what labels would add was gained without them; nan where they add nothing."""
    return (free - start) / (supervised - start) if supervised > start else float("nan")


def print_table(rows: list[Row]) -> None:
    """A line for each fold and seed of a set, then the set's mean."""
    by_place: dict[tuple[str, int, int], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_place[row.set, row.fold, row.seed][row.row] = row
    print("set        fold seed  start  label-free  supervised   gap  clusters   ARI")
    lines: dict[str, list[list[float]]] = defaultdict(list)
    for (name, fold, seed), found in by_place.items():
        free, with_labels = found.get("label-free"), found.get("supervised")
        if free is None or free.map_start is None:
            continue
        supervised = with_labels.map if with_labels else float("nan")
        gap = 100 * share_of_gap(free.map_start, free.map, supervised)
        nan = float("nan")
        numbers = [free.map_start, free.map, supervised, gap, free.clusters or nan, free.ari or nan]
        lines[name].append(numbers)
        print(f"{name:10s} {fold:4d} {seed:4d}" + _cells(numbers))
    for name, many in lines.items():
        start, free_, supervised, _, clusters, ari = (
            sum(v) / len(v) for v in zip(*many, strict=True)
        )
        gap = 100 * share_of_gap(start, free_, supervised)
        print(f"{name:10s} mean     " + _cells([start, free_, supervised, gap, clusters, ari]))


def _cells(numbers: list[float]) -> str:
    start, free, supervised, gap, clusters, ari = numbers
    return (
        f"  {start:5.1f}  {free:10.1f}  {supervised:10.1f}  {gap:4.0f}  {clusters:8.1f}  {ari:.2f}"
    )


def runs_of(args: argparse.Namespace) -> list[Run]:
    """Sets, then folds and seeds, then rows; sets without folds have fold 0 alone."""
    found = []
    for name in args.sets:
        folds = args.folds if name == "pku37" else [0]
        pairs = product(folds, args.seeds)
        if args.diagonal and name == "pku37":
            pairs = zip(folds, args.seeds, strict=False)
        found += [Run(name, *pair, row) for pair in pairs for row in args.rows]
    return found


def main() -> None:
    """Trains what is not there yet, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, metavar="DATA_ROOT")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    parser.add_argument("--output", type=Path, default=Path("logs/folders"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--folds", nargs="+", type=int, choices=range(3), default=[0, 1, 2])
    parser.add_argument("--diagonal", action="store_true", help="seed i on fold i")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--trial", default="recipe", help="name of the folder of its runs")
    parser.add_argument("--change", nargs="+", default=[], metavar="KEY VALUE")
    parser.add_argument("--both", nargs="+", default=[], metavar="KEY VALUE")
    args = parser.parse_args()
    boot.activate()
    rows: list[Row] = []
    for row in rows_of(args, runs_of(args)):
        rows.append(row)
        write(args.output / "results.csv", rows)
    print_table(rows)


if __name__ == "__main__":
    main()
