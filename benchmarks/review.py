"""What fifty answers of a simulated user add to the labels of real folders, chosen and at random.

    python benchmarks/review.py DATA_ROOT WEIGHTS [--output logs/review] [--sets eth80 nyala ...]
                                [--questions 50] [--seeds 1 2 3] [--table-only]

DATA_ROOT holds the folders pku37, coil20, eth80 and nyala, WEIGHTS is an OSNet x0.25. No training:
features of the training images by the pretrained network, extracted once for each set, labelled by
Jaccard (k1 16, k2 4) and DBSCAN (eps 0.6, min_samples 4). A seed draws four fifths of the images.
The user knows the identities and answers yes or no, the answers become links, the same features are
labelled again. The gain is that of the adjusted Rand index (outliers as clusters of their own) over
the labels without answers.

- chosen: by `choose_questions`, all at once, as the command `review` asks them;
- rounds: the same in five rounds, each after the labelling with the answers before;
- random: as many pairs drawn evenly from all pairs of images;
- neighbours: as many pairs of an image, drawn evenly, and one of its 20 nearest.

Beside it, what the features are worth: how often the nearest image is of the same individual, how
many of the 50 most similar pairs are, and the best ARI of five radii without answers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastreid_cc import boot
from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.labeling.answers import Answers
from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.distances.jaccard import JaccardDistance
from fastreid_cc.labeling.questions import choose_questions
from fastreid_cc.labeling.tracklets import Linker, LinkOptions
from fastreid_cc.labels.diagnostics import stability

ALWAYS = [
    *("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", "CC.EXTRACT.BN", "camera"),
    *("INPUT.SIZE_TEST", "[256,128]"),
]
#: Config keys of each set: which images, and what their names say.
SETS: dict[str, list[str]] = {
    "eth80": ["CC.FOLDER.IDENTITY", "folder:0", "CC.FOLDER.TEST_INCLUDE", "^[a-z]+_[79]/"],
    "nyala": [
        *("CC.FOLDER.IDENTITY", "folder:0", "CC.FOLDER.INCLUDE", "_leftphoto"),
        *("CC.FOLDER.TEST_INCLUDE", "^test.*_leftphoto"),
    ],
    "nyala-both": ["CC.FOLDER.IDENTITY", "folder:0", "CC.FOLDER.TEST_INCLUDE", "^test"],
    "pku37": [
        *("CC.FOLDER.CAMERA", r"/(\d+)_\d+\.png$", "CC.FOLDER.IDENTITY", "folder:0"),
        *("CC.FOLDER.TEST_INCLUDE", "^(06[5-9]|0[7-9]|1)"),
    ],
    "coil20": [
        *("CC.FOLDER.CAMERA", r"__(\d+)\.png$", "CC.FOLDER.CAMERA_SECTORS", "(72,4)"),
        *("CC.FOLDER.IDENTITY", r"^(obj\d+)__", "CC.FOLDER.TEST_INCLUDE", "^obj(8|9|10)__"),
    ],
}
FOLDERS = {"nyala-both": "nyala"}
ROUNDS = {"chosen": 1, "rounds": 5}
RADII = (0.3, 0.4, 0.5, 0.6, 0.7)
WAYS = ("chosen", "rounds", "random", "neighbours")


def extract(args: argparse.Namespace, name: str) -> Path:
    """The file with a set's features and identities; made unless it is there."""
    path = Path(args.output / f"{name}.npz")
    if path.is_file():
        return path
    boot.activate()
    from fastreid.config import get_cfg
    from fastreid.engine.defaults import DefaultTrainer

    from fastreid_cc.plugin.loading.datasets import configure_from
    from fastreid_cc.plugin.loading.extract import extract_features
    from fastreid_cc.plugin.loading.target_images import collect_images

    cfg = get_cfg()
    cfg.merge_from_file("OwnImages/cc_osnet_x0_25")
    root = (args.data / FOLDERS.get(name, name)).resolve()
    weights = ["MODEL.BACKBONE.PRETRAIN_PATH", str(args.weights.resolve())]
    cfg.merge_from_list([*ALWAYS, *weights, "CC.FOLDER.ROOT", str(root), *SETS[name]])
    cfg.freeze()
    configure_from(cfg)
    images = collect_images(cfg)
    features = extract_features(cfg, DefaultTrainer.build_model(cfg).eval(), images)
    args.output.mkdir(parents=True, exist_ok=True)
    np.savez(path, features=features.numpy(), truth=images.truth)
    return path


def labeler() -> PseudoLabeler:
    """What labels the images."""
    return PseudoLabeler(
        distance=JaccardDistance(k1=16, k2=4), clusterer=DBSCAN(eps=0.6, min_samples=4)
    )


def worth(features: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """What features tell of identities without answers."""
    cosine = np.triu(features @ features.T, 1) + np.tril(np.full((len(truth),) * 2, -2.0))
    a, b = np.unravel_index(np.argsort(-cosine, axis=None, kind="stable")[:50], cosine.shape)
    nearest = np.maximum(cosine, cosine.T).argmax(axis=1)
    found = labeler().sweep(torch.from_numpy(features), RADII)
    return {
        "rank1": float((truth[nearest] == truth).mean()),
        "top50": float((truth[a] == truth[b]).mean()),
        "best": max(stability(one.labels, truth) for one in found),
    }


def relabelled(features: np.ndarray, same: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Labels i64 [N] with answers, as a training honours them by default."""
    linker = Linker(LinkOptions(), np.zeros(len(features), np.int64), None, Answers(same, other))
    rows = torch.from_numpy(features)
    return labeler()(rows, links=linker(rows)).labels


def drawn(way: str, features: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Pairs of rows, i64 [count, 2], all different."""
    generator, images = np.random.default_rng(seed), len(features)
    nearest = np.argsort(-(features @ features.T), axis=1, kind="stable")[:, 1:21]
    found: dict[tuple[int, int], None] = {}
    while len(found) < count:
        a, b = generator.integers(images, size=2).tolist()
        b = int(nearest[a, b % nearest.shape[1]]) if way == "neighbours" else b
        if a != b:
            found[min(a, b), max(a, b)] = None
    return np.array(list(found))


def answered(
    way: str, features: np.ndarray, truth: np.ndarray, count: int, seed: int
) -> dict[str, float]:
    """The figures of one way of asking."""
    asked = np.empty((0, 2), np.int64)
    parts = [asked, asked]
    labels = first = relabelled(features, *parts)
    for part in range(ROUNDS.get(way, 1)):
        if way in ROUNDS:
            more = count * (part + 1) // ROUNDS[way] - len(asked)
            chosen = choose_questions(features, labels, more, same=parts[0], other=parts[1])
            pairs = np.array([(q.first, q.second) for q in chosen], np.int64).reshape(-1, 2)
        else:
            pairs = drawn(way, features, count, seed)
        asked = np.concatenate([asked, pairs])
        is_same = truth[asked[:, 0]] == truth[asked[:, 1]]
        parts = [asked[is_same], asked[~is_same]]
        labels = relabelled(features, *parts)
    before, after = stability(first, truth), stability(labels, truth)
    clusters = int(labels.max(initial=-1)) + 1
    found = {"ari": after, "gain": after - before, "asked": len(asked), "yes": len(parts[0])}
    return {"before": before, **found, "clusters": clusters}


def results(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One entry for each set, seed and way; also in results.json."""
    made = []
    for name in args.sets:
        with np.load(extract(args, name)) as stored:
            features, truth = stored["features"], stored["truth"]
        for seed in args.seeds:
            kept = np.random.default_rng(seed).permutation(len(truth))[: len(truth) * 4 // 5]
            kept.sort()
            beside = worth(features[kept], truth[kept])
            for way in WAYS:
                figures = answered(way, features[kept], truth[kept], args.questions, seed)
                made.append({"set": name, "seed": seed, "way": way, **figures, **beside})
    (args.output / "results.json").write_text(json.dumps(made, indent=1))
    return made


def print_table(made: list[dict[str, Any]]) -> None:
    """A line for each set and way: means over the seeds, and the gain of each seed."""
    for name in dict.fromkeys(entry["set"] for entry in made):
        of_set = [entry for entry in made if entry["set"] == name]
        rank1, top50 = (np.mean([entry[key] for entry in of_set]) for key in ("rank1", "top50"))
        best = max(entry["best"] for entry in of_set)
        print(
            f"{name}: nearest image right {rank1:.3f}, top 50 pairs {top50:.2f}, ARI <= {best:.3f}"
        )
        for way in WAYS:
            runs = [entry for entry in made if (entry["set"], entry["way"]) == (name, way)]
            mean = {key: np.mean([run[key] for run in runs]) for key in ("before", "gain", "yes")}
            gains = " ".join(f"{run['gain']:+.3f}" for run in runs)
            print(
                f"{name:10s} {way:10s} ARI {mean['before']:.3f} {mean['gain']:+.3f} ({gains})"
                f"  yes {mean['yes']:.1f} of {runs[0]['asked']}"
            )


def main() -> None:
    """Extracts what is not there yet, asks, prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, metavar="DATA_ROOT")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    parser.add_argument("--output", type=Path, default=Path("logs/review"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--table-only", action="store_true", help="of the last results.json")
    args = parser.parse_args()
    stored = args.output / "results.json"
    print_table(json.loads(stored.read_text()) if args.table_only else results(args))


if __name__ == "__main__":
    main()
