"""Trains with good and harmful settings, and says which figures without identities tell them apart.

    python benchmarks/helped.py DATA_ROOT WEIGHTS [--output logs/helped] [--sets pku37 coil20 ...]
                                [--settings cc ecn ...] [--table-only]

DATA_ROOT holds the folders pku37, coil20, eth80 and nyala, WEIGHTS is an OSNet x0.25. Each setting
trains on each set by `python -m fastreid_cc train`, one run at a time, seconds to minutes each; a
run that has ended is not trained again. The features before and after, of training and test images
and of changed views of them, lie in the run's features.npz, so that a figure thought of later needs
no training. `results.json` and the tables printed hold, for each run, mAP before and after (every
test image asks, images of its own camera left out) and every figure; and for each set Spearman's
rank correlation of a figure's change with the gain in mAP, and of its last value with the last mAP.
The figure in use was chosen on pku37 and coil20; eth80 and nyala judge it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
CHOSEN_ON, REPORTED_ON = ("pku37", "coil20"), ("eth80", "nyala")

#: Config keys of each set.
SETS: dict[str, list[str]] = {
    "pku37": [
        *("INPUT.SIZE_TRAIN", "[256,128]", "INPUT.SIZE_TEST", "[256,128]"),
        *("CC.FOLDER.CAMERA", r"/(\d+)_\d+\.png$", "CC.FOLDER.IDENTITY", "folder:0"),
        *("CC.FOLDER.TEST_INCLUDE", "^(06[5-9]|0[7-9]|1)"),
    ],
    "coil20": [
        *("INPUT.SIZE_TRAIN", "[96,96]", "INPUT.SIZE_TEST", "[96,96]"),
        *("CC.FOLDER.CAMERA", r"__(\d+)\.png$", "CC.FOLDER.CAMERA_SECTORS", "(72,4)"),
        *("CC.FOLDER.IDENTITY", r"^(obj\d+)__", "CC.FOLDER.TEST_INCLUDE", "^obj(8|9|10)__"),
    ],
    "eth80": [
        *("INPUT.SIZE_TRAIN", "[96,96]", "INPUT.SIZE_TEST", "[96,96]"),
        *("CC.FOLDER.CAMERA", r"-(\d{3})\.jpg$", "CC.FOLDER.CAMERA_SECTORS", "(360,4)"),
        *("CC.FOLDER.IDENTITY", "folder:0", "CC.FOLDER.TEST_INCLUDE", "^[a-z]+_[79]/"),
    ],
    "nyala": [
        *("INPUT.SIZE_TRAIN", "[112,160]", "INPUT.SIZE_TEST", "[112,160]"),
        *("CC.FOLDER.IDENTITY", "folder:0", "CC.FOLDER.INCLUDE", "_leftphoto"),
        *("CC.FOLDER.TEST_INCLUDE", "^test.*_leftphoto"),
        *("CC.DISTANCE.JACCARD.K1", "8", "CC.CLUSTER.DBSCAN.MIN_SAMPLES", "2"),
        *("DATALOADER.NUM_INSTANCE", "4"),
    ],
}
SHORT = ["SOLVER.MAX_EPOCH", "4", "SOLVER.STEPS", "[3]", "TEST.EVAL_PERIOD", "4"]
#: Shipped config of each setting, and what is changed in it.
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "cc": ("cc_osnet_x0_25", SHORT),
    "ecn": ("ecn_osnet_x0_25", [*SHORT, "DATALOADER.NUM_INSTANCE", "1"]),
    "high-rate": ("cc_osnet_x0_25", [*SHORT, "SOLVER.BASE_LR", "0.0035"]),
    "low-rate": ("cc_osnet_x0_25", [*SHORT, "SOLVER.BASE_LR", "0.0001"]),
    "eps-small": ("cc_osnet_x0_25", [*SHORT, "CC.CLUSTER.DBSCAN.EPS", "0.3"]),
    "eps-large": ("cc_osnet_x0_25", [*SHORT, "CC.CLUSTER.DBSCAN.EPS", "0.8"]),
    "spcl": ("spcl_osnet_x0_25", SHORT),
    "scratch": (
        "cc_scratch_R18",
        [
            *("SOLVER.MAX_EPOCH", "6", "TEST.EVAL_PERIOD", "6", "CC.WARMUP.EPOCHS", "3"),
            *("INPUT.SIZE_TRAIN", "[64,64]", "INPUT.SIZE_TEST", "[64,64]"),
        ],
    ),
}


def train(args: argparse.Namespace, name: str, setting: str) -> Path:
    """The folder of the ended run; trains it unless it is there."""
    folder = args.output / name / setting
    if (folder / "model_final.pth").is_file():
        return folder
    config, changed = SETTINGS[setting]
    line = [sys.executable, "-m", "fastreid_cc", "train", "--config-file", f"OwnImages/{config}"]
    line += ["OUTPUT_DIR", str(folder), "CC.OVERWRITE", "True", "MODEL.DEVICE", "cpu"]
    line += ["CC.FOLDER.ROOT", str((args.data / name).resolve()), "DATALOADER.NUM_WORKERS", "0"]
    line += ["CC.ITERS_PER_EPOCH", "10", "SOLVER.CHECKPOINT_PERIOD", "100", *SETS[name], *changed]
    if "osnet" in config:
        line += ["MODEL.BACKBONE.PRETRAIN_PATH", str(args.weights.resolve())]
    place = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    print(f"{name} {setting}", flush=True)
    done = subprocess.run(line, env={**os.environ, **place}, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return folder


class View(nn.Module):
    """A network that is shown another view of its images."""

    def __init__(self, model: nn.Module, change: Any) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Features of the changed images."""
        return self.model({**batch, "images": self.change(batch["images"].clone())})


def zoomed(images: Tensor) -> Tensor:
    """The middle of the images, 80 % of each side, at the old size."""
    height, width = images.shape[2:]
    top, left = height // 10, width // 10
    middle = images[:, :, top : height - top, left : width - left]
    return F.interpolate(middle, size=(height, width), mode="bilinear", align_corners=False)


VIEWS: dict[str, Any] = {
    "plain": lambda images: images,
    "flip": lambda images: images.flip(dims=[3]),
    "zoom": zoomed,
    "gray": lambda images: images.mean(dim=1, keepdim=True).expand_as(images).contiguous(),
}


def extract(folder: Path) -> None:
    """Writes features.npz: before and after, of training and test images, of every view."""
    if (folder / "features.npz").is_file():
        return
    from fastreid.engine.defaults import DefaultTrainer

    from fastreid_cc.plugin.loading.datasets import UnlabeledFolder, configure_from
    from fastreid_cc.plugin.loading.extract import extract_features
    from fastreid_cc.plugin.loading.target_images import ImageList, collect_images
    from fastreid_cc.plugin.offline.run_features import load_network
    from fastreid_cc.plugin.offline.run_folder import find_checkpoint, read_config
    from fastreid_cc.plugin.seeding import seed_globals

    cfg = read_config(folder)
    configure_from(cfg)
    seed_globals(cfg.CC.SEED)  # as the trainer does: the network at the start, bit for bit
    models = {"before": DefaultTrainer.build_model(cfg).eval()}
    models["after"] = load_network(cfg, find_checkpoint(folder))
    data, train = UnlabeledFolder(), collect_images(cfg)
    items = sorted([*data.query, *data.gallery])
    labels = np.array([item[1:] for item in items])
    test = ImageList([item[0] for item in items], labels[:, 1])
    found = {"train/cameras": train.cameras, "test/cameras": test.cameras}
    found |= {"train/truth": train.truth, "test/truth": labels[:, 0]}
    cfg.defrost()
    cfg.CC.EXTRACT.FLIP = False
    for when, model in models.items():
        for part, images in (("train", train), ("test", test)):
            cfg.CC.EXTRACT.BN = "running"
            for view, change in VIEWS.items():
                features = extract_features(cfg, View(model, change), images, tested=True)
                found[f"{part}/{when}/{view}"] = features.numpy()
            cfg.CC.EXTRACT.BN = "camera"
            features = extract_features(cfg, model, images)
            found[f"{part}/{when}/labelled"] = features.numpy()
    np.savez(folder / "features.npz", **found)


def precision(features: np.ndarray, truth: np.ndarray, cameras: np.ndarray) -> float:
    """mAP in per cent: each image asks all others but those of its identity and camera.

    Where there is one camera only the image itself is left out.
    """
    cosine, found = features @ features.T, []
    several = len(np.unique(cameras)) > 1
    for row, alike in enumerate(cosine):
        left_out = np.arange(len(truth)) == row
        if several:
            left_out |= (truth == truth[row]) & (cameras == cameras[row])
        order = np.argsort(-alike[~left_out], kind="stable")
        hits = (truth[~left_out] == truth[row])[order]
        if hits.any():
            found.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return 100 * float(np.mean(found))


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
    sys.path.insert(0, str(ROOT))
    from fastreid_cc import boot

    boot.activate()
    for name in args.sets:
        for setting in args.settings:
            folder = args.output / name / setting
            if not args.table_only:
                extract(train(args, name, setting))
            if (folder / "features.npz").is_file():
                with np.load(folder / "features.npz") as found:
                    truth, cameras = found["test/truth"], found["test/cameras"]
                    before = precision(found["test/before/plain"], truth, cameras)
                    after = precision(found["test/after/plain"], truth, cameras)
                print(f"{name} {setting}: mAP {before:.1f} -> {after:.1f}", flush=True)


if __name__ == "__main__":
    main()
