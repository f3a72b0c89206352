"""Measures what tracklets give to a label-free training: clean ones, and with a tracker's faults.

    python benchmarks/tracklets.py DATA_ROOT WEIGHTS [--output logs/tracklets]
                                   [--sets pku37 synthetic] [--rows none clean ...]
                                   [--seeds 1 2 3] [--table-only] [--everyone]
                                   [--set KEY VALUE ...]

DATA_ROOT holds the folder pku37 (synthetic people are drawn below --output), WEIGHTS is an OSNet
x0.25. Each row trains `OwnImages/cc_osnet_x0_25` on each set and seed by the command `train`, one
after the other; a training that has ended is not repeated. The keys of --set go to all of them.

Tracks are known from the names: on pku37 the eight views of a person in a camera (seed i is
measured on fold i of three); in the synthetic world two sightings of four pictures of a person by a
camera. Faults are made of them, drawn by the seed, into a table that CC.FOLDER.TRACKLET reads:

* switch10, switch20: that share of a camera's tracks exchange their ends, two by two, at any image;
* fragments: every track is two, parted at any image.

Rows that end in -across have the refiner cross_camera too, those with -pooled CC.LINKS.POOL 0.5;
with both it is OwnImages/cc-tracklets_osnet_x0_25.

Times, which these images do not have, are made up: in a camera a track begins every half track.
Printed: mAP and Rank-1 of the test people at the end, ARI and clusters of the last labelling, ARI
of the first, means and standard deviations over seeds, and the gain in mAP over `none`, seed by
seed. With --everyone the final checkpoints are measured otherwise too: every test image asks, not
those of one camera alone, by the statistics of training and by those of each camera.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import trained

from fastreid_cc import boot
from fastreid_cc.data.naming import list_images
from fastreid_cc.data.synthetic import SyntheticOptions, build_synthetic
from fastreid_cc.files import write_atomically

SETS = ("pku37", "synthetic")
UNCUT, TIMES = ("CC.LINKS.CUT", "0.0"), ("CC.FOLDER.TIME", "{table}")
POOLED = ("CC.LINKS.POOL", "0.5")
ACROSS = ("CC.REFINE.NAMES", "('cross_camera',)")
FAULTS = ("clean", "switch10", "switch20", "fragments")
#: Row -> fault of its tracks, and keys beside CC.FOLDER.TRACKLET; None = without tracklets.
ROWS: dict[str, tuple[str, tuple[str, ...]] | None] = {
    "none": None,
    "clean": ("clean", ()),
    "clean-times": ("clean", TIMES),
    "clean-drawn": ("clean", ("CC.SAMPLER.TRACKLET_AWARE", "True")),
    "clean-pooled": ("clean", POOLED),
    "switch10": ("switch10", ()),
    "switch20": ("switch20", ()),
    "switch20-uncut": ("switch20", UNCUT),
    "switch20-times": ("switch20", TIMES),
    "fragments": ("fragments", ()),
    **{f"{fault}-across": (fault, ACROSS) for fault in FAULTS},
    **{f"{fault}-pooled-across": (fault, (*ACROSS, *POOLED)) for fault in FAULTS},
}
FIGURES = {"mAP": "mAP", "Rank-1": "Rank-1", "ARI": "cc/ari", "clusters": "cc/num_clusters"}
FIRST = {"first ARI": "cc/ari"}  # of the network as it comes
#: Every image of a test person asks; those of its own camera are left out of the answer.
EVERYONE = (
    *("CC.FOLDER.MEASURE", "leave-one-out", "CC.FOLDER.APART", "camera"),
    *("CC.FOLDER.QUERY_CAMERAS", "()", "CC.FOLDER.GALLERY_CAMERAS", "()"),
)
STATISTICS = ("running", "camera")
ON_CPU = ("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0")
STEP = 10.0  # frames between two images of a track


def true_tracks(name: str, images: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """(camera, track) -> its images in order, read off the names of a set."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for image in sorted(images):
        if name == "pku37":
            person, camera = re.findall(r"\d+", image)[:2]
            track = person
        else:
            matched = re.search(r"(\d+)_c(\d+)s1_(\d+)", image)
            assert matched is not None, image
            person, camera, number = matched.groups()
            track = f"{person}-{(int(number) - 1) // 4}"
        found[camera, track].append(image)
    return dict(found)


def with_faults(
    tracks: dict[tuple[str, str], list[str]], fault: str, seed: int
) -> list[tuple[str, str, float]]:
    """(image, tracklet, time) of every image, as a tracker with a fault would have them.

    Args:
        tracks: of `true_tracks`.
        fault: "clean", "fragments", or "switch" and the share of tracks in per cent.
        seed: of the draws.
    """
    generator = np.random.default_rng((seed, 2026))
    tracklet, time = {}, {}
    for camera in sorted({camera for camera, _ in tracks}):
        own = {track: images for (c, track), images in sorted(tracks.items()) if c == camera}
        begin = 0.0
        for track in generator.permutation(sorted(own)).tolist():
            for place, image in enumerate(own[track]):
                tracklet[image], time[image] = track, begin + STEP * place
            begin += STEP * len(own[track]) / 2
        long = [track for track, images in own.items() if len(images) > 1]
        ends = {track: own[track][generator.integers(1, len(own[track])) :] for track in long}
        pairs = np.empty((0, 2), str)
        if fault.startswith("switch"):
            count = round(float(fault[6:]) / 100 * len(long) / 2)
            pairs = generator.permutation(long)[: 2 * count].reshape(-1, 2)
        for a, b in pairs.tolist():
            tracklet |= dict.fromkeys(ends[a], b) | dict.fromkeys(ends[b], a)
        if fault == "fragments":
            tracklet |= {image: f"{track}b" for track in long for image in ends[track]}
    return [(image, tracklet[image], time[image]) for image in sorted(tracklet)]


def keys_of(args: argparse.Namespace, name: str, seed: int) -> tuple[list[str], list[str]]:
    """(config keys of a set, its training images as CC.FOLDER sees them)."""
    if name == "pku37":
        root = args.data / name
        people = sorted({image.split("/")[0] for image in list_images(root)})
        fold = (people[:12], people[12:24], people[24:])[(seed - 1) % 3]
        test = f"^({'|'.join(fold)})/"
        keys = ["CC.FOLDER.CAMERA", r"/(\d+)_\d+\.png$", "CC.FOLDER.IDENTITY", "folder:0"]
        keys += ["CC.FOLDER.TEST_INCLUDE", test, "CC.FOLDER.QUERY_CAMERAS", '("01",)']
        keys += ["CC.FOLDER.GALLERY_CAMERAS", '("02",)']
        images = [image for image in list_images(root) if not re.search(test, image)]
    else:
        options = SyntheticOptions(
            seed=args.world, train_ids=40, test_ids=32, cameras=4, images_per_camera=8
        )
        root = build_synthetic(args.output / "data", options)
        keys = ["CC.FOLDER.CAMERA", r"_c(\d)s", "CC.FOLDER.IDENTITY", r"(\d+)_c\ds"]
        keys += ["CC.FOLDER.QUERY", "query", "CC.FOLDER.GALLERY", "bounding_box_test"]
        images = [i for i in list_images(root) if i.startswith("bounding_box_train/")]
        keys += ["INPUT.SIZE_TRAIN", "[128,64]", "INPUT.SIZE_TEST", "[128,64]"]
    return ["CC.FOLDER.ROOT", str(Path(root).resolve()), *keys], images


def everyone(args: argparse.Namespace, name: str, row: str, seed: int) -> dict[str, float]:
    """mAP of an ended run by each of `STATISTICS` where all test images ask; measured once."""
    from fastreid_cc.commands import train

    folder = args.output / name / row / str(seed)
    file = folder / "everyone.json"
    if not file.is_file():
        words = ["--config-file", "OwnImages/cc_osnet_x0_25", "--eval-only", *ON_CPU]
        words += ["MODEL.WEIGHTS", str(folder / "model_final.pth"), *keys_of(args, name, seed)[0]]
        words += [*args.pairs, *EVERYONE, "OUTPUT_DIR", str(folder / "everyone")]
        found = {}
        for statistics in STATISTICS:
            line = train.parser().parse_intermixed_args([*words, "TEST.BN", statistics])
            found[statistics] = train.worker(line)["mAP"]
        with write_atomically(file) as part:
            part.write_text(json.dumps(found) + "\n")
    measured: dict[str, float] = json.loads(file.read_text())
    return measured


def print_everyone(args: argparse.Namespace) -> None:
    """mAP by fold and the gain over `none`, where all test images ask."""
    for name, statistics in product(args.sets, STATISTICS):
        print(f"\n{name}, every test image asks, batch norm's statistics: {statistics}")
        base: dict[int, float] = {}
        for row in args.rows:
            ended = [s for s in args.seeds if trained.ended(args.output / name / row / str(s))]
            own = {seed: everyone(args, name, row, seed)[statistics] for seed in ended}
            if not own:
                continue
            base = base or own
            gains = " ".join(f"{own[s] - base[s]:+.1f}" for s in own if s in base)
            each = ", ".join(f"{value:.1f}" for value in own.values())
            print(f"| {row} | {each} | {_spread(list(own.values()))} | {gains} |")


def train(args: argparse.Namespace, name: str, row: str, seed: int) -> None:
    """Trains a row, unless it has ended before."""
    folder = args.output / name / row / str(seed)
    if trained.ended(folder):
        return
    keys, images = keys_of(args, name, seed)
    kind = ROWS[row]
    if kind is not None:
        table = args.output / name / f"{kind[0]}-{seed}.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(table) as part, part.open("w", newline="") as stream:
            lines = csv.writer(stream, lineterminator="\n")
            lines.writerow(("image", "tracklet", "time"))
            lines.writerows(with_faults(true_tracks(name, images), kind[0], seed))
        rule = f"file:{table.resolve()}"
        keys += ["CC.FOLDER.TRACKLET", rule, *(k.format(table=rule) for k in kind[1])]
    words = ["--config-file", "OwnImages/cc_osnet_x0_25", *ON_CPU]
    words += ["MODEL.BACKBONE.PRETRAIN_PATH", str(args.weights.resolve())]
    words += ["CC.OVERWRITE", "True", "CC.SEED", str(seed), "CC.EVAL_BEFORE", "False"]
    words += ["CC.COMPARE_IMAGES", "0", "CC.KEEP_START", "False"]
    trained.train(folder, [*words, *keys, *args.pairs], f"{name} {row} seed {seed}")


def figures(folder: Path) -> dict[str, float]:
    """The first or the last value of each figure of an ended run."""
    found: dict[str, float] = {}
    for text in (folder / "metrics.json").read_text().splitlines():
        line = json.loads(text)
        found = {name: line[key] for name, key in FIRST.items() if key in line} | found
        found |= {name: line[key] for name, key in FIGURES.items() if key in line}
    return found


def print_table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One line for each set and row of which a run has ended; also in results.json."""
    made = []
    for name, row in product(args.sets, args.rows):
        runs = {
            seed: figures(args.output / name / row / str(seed))
            for seed in args.seeds
            if trained.ended(args.output / name / row / str(seed))
        }
        if runs:
            made.append({"set": name, "row": row, "runs": runs})
    base = {one["set"]: one["runs"] for one in made if one["row"] == "none"}
    names = (*FIGURES, *FIRST)
    print(f"| set | tracklets | seeds | {' | '.join(names)} | mAP gained |")
    print("|" + "---|" * (4 + len(names)))
    for one in made:
        cells = [_spread([run[name] for run in one["runs"].values()]) for name in names]
        shared = base.get(one["set"], {}).keys() & one["runs"].keys()
        gains = [one["runs"][s]["mAP"] - base[one["set"]][s]["mAP"] for s in sorted(shared)]
        gained = _spread(gains, sign="+") if gains and one["row"] != "none" else ""
        seeds = ", ".join(map(str, one["runs"]))
        print(f"| {one['set']} | {one['row']} | {seeds} | {' | '.join(cells)} | {gained} |")
    (args.output / "results.json").write_text(json.dumps(made, indent=1))
    return made


def _spread(values: Sequence[float], sign: str = "") -> str:
    digits = 2 if max(map(abs, values), default=0) <= 1 else 1
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.{digits}f}{spread}"


def main() -> None:
    """Trains what is not there yet, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, metavar="DATA_ROOT")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    parser.add_argument("--output", type=Path, default=Path("logs/tracklets"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--world", type=int, default=2026, help="CC.SYNTHETIC.SEED")
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    parser.add_argument("--everyone", action="store_true", help="all test images ask, too")
    parser.add_argument("--set", nargs="*", default=[], dest="pairs", metavar="KEY VALUE")
    args = parser.parse_args()
    boot.activate()
    args.output.mkdir(parents=True, exist_ok=True)
    if not args.table_only:
        for seed, name, row in product(args.seeds, args.sets, args.rows):
            train(args, name, row, seed)
    print_table(args)
    if args.everyone:
        print_everyone(args)


if __name__ == "__main__":
    main()
