"""Trains with good and harmful settings, and says which figures without identities tell them apart.

    python benchmarks/helped.py DATA_ROOT WEIGHTS [--output logs/helped] [--sets pku37 coil20 ...]
                                [--settings cc ecn ...] [--table-only]

DATA_ROOT holds the folders pku37, coil20, eth80 and nyala, WEIGHTS is an OSNet x0.25. Each setting
trains on each set by the command `train` (a process of its own, one at a time, some ten seconds of
one core each); a training that has ended is not repeated. Every checkpoint counts as a run, cut
short after its epoch. Features before and after, of training and test images and of their mirror
images, lie beside the checkpoint, so that a figure thought of later needs no training.
`results.json` and the tables printed hold, for each run, mAP before and after (each test image asks
those of other cameras) and every figure; and for each set Spearman's rank correlation of a figure's
change with the gain in mAP, and of its last value with the last mAP. The figure in use was chosen
on pku37 and coil20, and changed after coil20's full training; CC.TRAIN_BN auto, which the configs
have, was chosen on coil20 and eth80. So nyala alone judges what is printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trained
from scipy.stats import spearmanr
from sklearn.metrics import silhouette_score
from torch import Tensor, nn

from fastreid_cc import boot
from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.distances.jaccard import JaccardDistance
from fastreid_cc.labels.diagnostics import stability
from fastreid_cc.labels.feature_figures import (
    cross_camera_share,
    effective_rank,
    intrinsic_dimension,
    kept_links,
    neighbor_contrast,
    neighbor_density,
    reciprocity,
    view_agreement,
    view_rank,
)
from fastreid_cc.labels.helped import is_worse

ALWAYS = [
    *("CC.OVERWRITE", "True", "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"),
    *("SOLVER.CHECKPOINT_PERIOD", "1", "TEST.EVAL_PERIOD", "100", "CC.EVAL_BEFORE", "False"),
    *("SOLVER.IMS_PER_BATCH", "32", "DATALOADER.NUM_INSTANCE", "4", "CC.KEEP_START", "False"),
]
#: Config keys of each set.
SETS: dict[str, list[str]] = {
    "pku37": [
        *("SOLVER.MAX_EPOCH", "5", "SOLVER.STEPS", "[4]", "CC.ITERS_PER_EPOCH", "20"),
        *("INPUT.SIZE_TRAIN", "[128,64]", "INPUT.SIZE_TEST", "[128,64]"),
        *("CC.FOLDER.CAMERA", r"/(\d+)_\d+\.png$", "CC.FOLDER.IDENTITY", "folder:0"),
        *("CC.FOLDER.TEST_INCLUDE", "^(06[5-9]|0[7-9]|1)"),
    ],
    "coil20": [
        *("SOLVER.MAX_EPOCH", "3", "SOLVER.STEPS", "[2]", "CC.ITERS_PER_EPOCH", "12"),
        *("INPUT.SIZE_TRAIN", "[64,64]", "INPUT.SIZE_TEST", "[64,64]"),
        *("CC.FOLDER.CAMERA", r"__(\d+)\.png$", "CC.FOLDER.CAMERA_SECTORS", "(72,4)"),
        *("CC.FOLDER.IDENTITY", r"^(obj\d+)__", "CC.FOLDER.TEST_INCLUDE", "^obj(8|9|10)__"),
    ],
    "eth80": [
        *("SOLVER.MAX_EPOCH", "3", "CC.ITERS_PER_EPOCH", "5"),
        *("INPUT.SIZE_TRAIN", "[64,64]", "INPUT.SIZE_TEST", "[64,64]"),
        *("CC.FOLDER.CAMERA", r"[-](\d{3})\.jpg$", "CC.FOLDER.CAMERA_SECTORS", "(360,4)"),
        *("CC.FOLDER.IDENTITY", "folder:0", "CC.FOLDER.TEST_INCLUDE", "^[a-z]+_[79]/"),
        *("CC.FOLDER.EXCLUDE", r"[-](022|045|066)-\d+\.jpg$"),
    ],
    "nyala": [
        *("SOLVER.MAX_EPOCH", "3", "CC.ITERS_PER_EPOCH", "5"),
        *("INPUT.SIZE_TRAIN", "[64,80]", "INPUT.SIZE_TEST", "[64,80]"),
        *("CC.FOLDER.IDENTITY", "folder:0", "CC.FOLDER.INCLUDE", "_leftphoto"),
        *("CC.FOLDER.TEST_INCLUDE", "^test.*_leftphoto"),
        *("CC.DISTANCE.JACCARD.K1", "8", "CC.CLUSTER.DBSCAN.MIN_SAMPLES", "2"),
    ],
}
EPS = ["CC.CLUSTER.DBSCAN.EPS", "0.6"]  # of the runs in docs/own-images.md
#: Shipped config of each setting, and what is changed in it.
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "cc": ("cc_osnet_x0_25", [*EPS]),
    "low-rate": ("cc_osnet_x0_25", [*EPS, "SOLVER.BASE_LR", "0.0001"]),
    "ecn": ("ecn_osnet_x0_25", ["DATALOADER.NUM_INSTANCE", "1"]),
    "high-rate": ("cc_osnet_x0_25", [*EPS, "SOLVER.BASE_LR", "0.0035"]),
    "eps-small": ("cc_osnet_x0_25", ["CC.CLUSTER.DBSCAN.EPS", "0.3"]),
    "eps-large": ("cc_osnet_x0_25", ["CC.CLUSTER.DBSCAN.EPS", "0.8"]),
    "spcl": ("spcl_osnet_x0_25", []),
    "scratch": (
        "cc_scratch_R18",
        [
            *("CC.WARMUP.EPOCHS", "1", "SOLVER.WARMUP_ITERS", "5"),
            *("INPUT.SIZE_TRAIN", "[64,64]", "INPUT.SIZE_TEST", "[64,64]"),
        ],
    ),
}


def train(args: argparse.Namespace, name: str, setting: str) -> Path:
    """The folder of the ended run; trains it unless it is there."""
    folder = args.output / name / setting
    if trained.ended(folder):
        return folder
    config, changed = SETTINGS[setting]
    words = ["--config-file", f"OwnImages/{config}"]
    words += ["CC.FOLDER.ROOT", str((args.data / name).resolve()), *ALWAYS, *SETS[name], *changed]
    if "osnet" in config:
        words += ["MODEL.BACKBONE.PRETRAIN_PATH", str(args.weights.resolve())]
    trained.train(folder, words, f"{name} {setting}")
    return folder


class View(nn.Module):
    """A network that is shown another view of its images."""

    def __init__(self, model: nn.Module, change: Any) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Features of the changed images."""
        return self.model({**batch, "images": self.change(batch["images"].clone())})


VIEWS: dict[str, Any] = {
    "plain": lambda images: images,
    "flip": lambda images: images.flip(dims=[3]),
}


def extract(folder: Path) -> None:
    """Writes start.npz and, for each epoch with a checkpoint, features of every view beside it.

    The networks before are the same in all runs of a set and backbone: one file for these.
    """
    from fastreid.engine.defaults import DefaultTrainer

    from fastreid_cc.plugin.loading.datasets import UnlabeledFolder, configure_from
    from fastreid_cc.plugin.loading.target_images import ImageList, collect_images
    from fastreid_cc.plugin.offline.run_features import load_network
    from fastreid_cc.plugin.offline.run_folder import read_config
    from fastreid_cc.plugin.seeding import seed_globals

    missing = [path for path in checkpoints(folder) if not path.with_suffix(".npz").is_file()]
    if not missing:
        return
    cfg = read_config(folder)
    configure_from(cfg)
    data, train = UnlabeledFolder(), collect_images(cfg)
    items = sorted([*data.query, *data.gallery])
    labels = np.array([item[1:] for item in items])
    parts = {"train": train, "test": ImageList([item[0] for item in items], labels[:, 1])}
    found = {"train/cameras": train.cameras, "test/cameras": labels[:, 1]}
    found["test/truth"] = labels[:, 0]
    backbone = "-".join(cfg.MODEL.BACKBONE[key] for key in ("NAME", "DEPTH"))
    start = folder.parent / f"{backbone}.npz"
    if not start.is_file():
        seed_globals(cfg.CC.SEED)  # as the trainer does: the network at the start, bit for bit
        np.savez(start, **_features(cfg, DefaultTrainer.build_model(cfg).eval(), parts, "before"))
    found |= np.load(start)
    for path in missing:
        after = _features(cfg, load_network(cfg, path), parts, "after")
        np.savez(path.with_suffix(".npz"), **found, **after)


def checkpoints(folder: Path) -> list[Path]:
    """One for each epoch."""
    return sorted(path for path in folder.glob("model_*.pth") if path.stem != "model_best")


def _features(cfg: Any, model: nn.Module, parts: dict[str, Any], when: str) -> dict[str, Any]:
    from fastreid_cc.plugin.loading.extract import extract_features

    cfg = cfg.clone()
    cfg.defrost()
    cfg.CC.EXTRACT.FLIP, cfg.CC.EXTRACT.BN = False, "running"
    return {
        f"{part}/{when}/{view}": extract_features(
            cfg, View(model, change), images, tested=True
        ).numpy()
        for part, images in parts.items()
        for view, change in VIEWS.items()
    }


def precision(features: np.ndarray, truth: np.ndarray, cameras: np.ndarray) -> float:
    """mAP in per cent: each image asks those of other cameras; where there is one, all others."""
    cosine, found = features @ features.T, []
    several = len(np.unique(cameras)) > 1
    for row, alike in enumerate(cosine):
        asked = cameras != cameras[row] if several else np.arange(len(truth)) != row
        order = np.argsort(-alike[asked], kind="stable")
        hits = (truth[asked] == truth[row])[order]
        if hits.any():
            found.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return 100 * float(np.mean(found))


def measured(found: Mapping[str, np.ndarray], part: str) -> dict[str, tuple[float, float]]:
    """Every figure, before and after, of the training or the test images."""
    cameras = found[f"{part}/cameras"]
    times = ("before", "after")
    plain = {when: found[f"{part}/{when}/plain"] for when in times}
    labels = {when: _labels(x) for when, x in plain.items()}
    made: dict[str, list[float]] = {}
    for when, x in plain.items():
        view = found[f"{part}/{when}/flip"]
        now = {
            "mirror_rank": view_rank(x, view, labels["after"]),  # as the training compares them
            "mirror_rank_all": view_rank(x, view),
            "mirror_agreement": view_agreement(x, view, 3),
            "mirror_labels": stability(labels[when], _labels(view)),
            "silhouette": _silhouette(x, labels[when]),
            "reciprocity": reciprocity(x, 5),
            "cross_camera": cross_camera_share(x, cameras),
            "effective_rank": effective_rank(x),
            "density": neighbor_density(x),
            "contrast": neighbor_contrast(x),
            "dimension": intrinsic_dimension(x),
        }
        for name, value in now.items():
            made.setdefault(name, []).append(value)
    made["kept_links"] = [1.0, kept_links(plain["before"], plain["after"], 5)]
    made["kept_labels"] = [1.0, stability(labels["before"], labels["after"])]
    return {name: (before, after) for name, (before, after) in made.items()}


def _labels(features: np.ndarray) -> np.ndarray:
    labeler = PseudoLabeler(distance=JaccardDistance(k1=10, k2=3), clusterer=DBSCAN(min_samples=3))
    return labeler(torch.from_numpy(features)).labels


def _silhouette(features: np.ndarray, labels: np.ndarray) -> float:
    kept = labels >= 0
    if not 1 < len(np.unique(labels[kept])) < kept.sum():
        return float("nan")
    return float(silhouette_score(features[kept], labels[kept], metric="cosine"))


def results(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One entry for each epoch of each run that has its features, also in results.json."""
    made = []
    for name, setting in product(args.sets, args.settings):
        for path in sorted((args.output / name / setting).glob("model_*.npz")):
            with np.load(path) as stored:
                found = dict(stored)
            truth, cameras = found["test/truth"], found["test/cameras"]
            gains = [
                precision(found[f"test/{when}/plain"], truth, cameras)
                for when in ("before", "after")
            ]
            entry = {"set": name, "setting": setting, "checkpoint": path.stem, "mAP": gains}
            made.append(entry | {part: measured(found, part) for part in ("train", "test")})
    (args.output / "results.json").write_text(json.dumps(made, indent=1))
    return made


def print_tables(made: list[dict[str, Any]]) -> None:
    """The runs with the figure in use, and the rank correlations of all figures."""
    for run in made:
        (before, after), figure = run["mAP"], run["train"]["mirror_rank"]
        warned = "warned" if is_worse(*figure) else ""
        name = f"{run['set']} {run['setting']} {run['checkpoint'].removeprefix('model_')}"
        print(
            f"{name:26s} mAP {before:5.1f} -> {after:5.1f} ({after - before:+5.1f})"
            f"  mirror_rank {figure[0]:.3f} -> {figure[1]:.3f} {warned}"
        )
    sets = list(dict.fromkeys(run["set"] for run in made))
    for part in ("train", "test"):
        print(f"\n{part} images: Spearman of change with gain, of last value with last mAP")
        print(" " * 18 + "".join(f"{name:>14s}" for name in sets))
        for figure in made[0][part]:
            cells = [_correlations([r for r in made if r["set"] == n], part, figure) for n in sets]
            print(f"{figure:18s}" + "".join(f"{a:+7.2f}{b:+7.2f}" for a, b in cells))


def _correlations(runs: list[dict[str, Any]], part: str, figure: str) -> tuple[float, float]:
    precisions = np.array([run["mAP"] for run in runs])
    values = np.array([run[part][figure] for run in runs])
    change, gain = (np.diff(array, axis=1)[:, 0] for array in (values, precisions))
    found = []
    for one, other in ((change, gain), (values[:, 1], precisions[:, 1])):
        usable = len(runs) > 2 and np.ptp(one) > 0 and np.isfinite(one).all()
        found.append(float(spearmanr(one, other).statistic) if usable else float("nan"))
    return found[0], found[1]


def main() -> None:
    """Trains what is not there yet, extracts, prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, metavar="DATA_ROOT")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    parser.add_argument("--output", type=Path, default=Path("logs/helped"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    args = parser.parse_args()
    boot.activate()
    if not args.table_only:
        for name, setting in product(args.sets, args.settings):
            extract(train(args, name, setting))
    print_tables(results(args))


if __name__ == "__main__":
    main()
