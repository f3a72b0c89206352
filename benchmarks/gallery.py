"""Who is new, and how many are there: the gallery's two answers, measured on folders of images.

python benchmarks/gallery.py DATA_ROOT WEIGHTS [--sets pku37 ...] [--output FOLDER]

The pretrained OSNet x0.25 of WEIGHTS as it comes, nothing is trained; features are kept in
--output. Each set ten times, individuals drawn anew:

* new or known: a half of the individuals, without identities, gives clusters (CC.DISTANCE K1 16,
  eps 0.5, as in configs/OwnImages) and these the threshold. Of the others a half is enrolled by
  half of its images; where the clusters are doubtful these give the threshold, as in the command
  `gallery calibrate`. Accuracy is the mean over known individuals (named, and rightly) and over new
  ones (called new); "hindsight" is that of the best threshold for the very images that asked.
* count: of every individual a quarter to all images are drawn; a half of the individuals is named,
  and of the rest three fifths to all are counted.

Last the time of a query among 100,000 x 128 in the engine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastreid_cc.data.naming import Rule, list_images
from fastreid_cc.files import write_atomically
from fastreid_cc.labeling.clusterers.dbscan import DBSCAN
from fastreid_cc.labeling.dense import count_unnamed
from fastreid_cc.labeling.distances.jaccard import JaccardDistance
from fastreid_cc.labeling.pseudo_labeler import PseudoLabeler
from fastreid_cc.labels.open_set import (
    MANY_WRONG,
    calibrate,
    nearest_cosines,
    separate_open_set,
    wrong_answers,
)

#: Set -> rule for the individual.
SETS = {
    "pku37": "folder:0",
    "coil20": r"^(obj\d+)__",
    "eth80": "folder:0",
    "nyala": "folder:0",
}
#: The same for the tracklet of an image: the eight views of a person in a camera.
TRACKLETS = {"pku37": r"^(.*)_\d+\.png$"}
DRAWS = 10


class OpenSet(NamedTuple):
    """One draw: accuracies in %, and the false-match rate expected and found.

    `named` is the accuracy by a threshold of the same images' identities instead of clusters, `own`
    by one of the enrolled images alone.
    """

    accuracy: float
    hindsight: float
    expected: float
    found: float
    named: float
    own: float


def features_of_set(root: Path, weights: Path, cache: Path) -> tuple[np.ndarray, list[str]]:
    """Features of all images of a folder, f32 [N, 128], and their paths below it."""
    names = list_images(root)
    if cache.is_file():
        kept = np.load(cache)
        if kept["names"].tolist() == names:
            return kept["features"], names
    import fastreid_cc.plugin  # noqa: F401  isort: skip  activates the plug-in
    import torch
    from fastreid.engine.defaults import DefaultTrainer

    from fastreid_cc.plugin.offline.run_features import embed
    from fastreid_cc.plugin.offline.run_folder import read_config

    config = "fastreid_cc://OwnImages/cc_osnet_x0_25.yml"
    given = ["MODEL.BACKBONE.PRETRAIN_PATH", str(weights), "MODEL.HEADS.NUM_CLASSES", "1"]
    model = DefaultTrainer.build_model(read_config(config, given))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "start.pth")
        torch.save({"model": model.state_dict()}, file)
        pairs = ["MODEL.WEIGHTS", str(file), "MODEL.HEADS.NUM_CLASSES", "1"]
        paths = [str(root / name) for name in names]
        features, _ = embed(config, paths, pairs=pairs, checkpoint="", batch=64)
    with write_atomically(cache) as part, part.open("wb") as stream:
        np.savez(stream, features=features, names=np.array(names))
    return features, names


def clusters(features: np.ndarray) -> np.ndarray:
    """Labels as a run's, i64 [N], -1 = outlier."""
    distance = JaccardDistance(k1=min(16, len(features)), k2=4)
    labeler = PseudoLabeler(distance=distance, clusterer=DBSCAN(eps=0.5, min_samples=4))
    return labeler(features, progress=False).labels


def open_set(
    features: np.ndarray, ids: np.ndarray, seed: int, tracklets: np.ndarray | None = None
) -> OpenSet:
    """One draw of the first measurement; by tracklets i64 [N] instead of clusters, if given."""
    generator = np.random.default_rng(seed)
    people = generator.permutation(np.unique(ids))
    unlabelled, others = np.split(people, [len(people) // 2])
    seen = np.isin(ids, unlabelled)
    x = features[seen]
    groups = clusters(x) if tracklets is None else tracklets[seen]
    apart = separate_open_set(x, groups, seed=seed)
    truth = np.unique(ids[seen], return_inverse=True)[1]
    named = calibrate(separate_open_set(x, truth, seed=seed)).threshold
    known = others[: (len(others) + 1) // 2]
    gallery, asking = [], []
    for who in others:
        rows = generator.permutation(np.flatnonzero(ids == who))
        cut = len(rows) // 2 if who in known else 0
        gallery.append(rows[:cut])
        asking.append(rows[cut:])
    enrolled, ask = np.concatenate(gallery), np.concatenate(asking)
    best, row = nearest_cosines(features[ask], features[enrolled])
    is_known, right = np.isin(ids[ask], known), ids[enrolled[row]] == ids[ask]

    def accuracy(threshold: float) -> float:
        given = best >= threshold
        return 50 * float((given & right)[is_known].mean() + (~given)[~is_known].mean())

    hindsight = max(accuracy(value) for value in [*np.unique(best), 2.0])
    who = np.unique(ids[enrolled], return_inverse=True)[1]
    own = calibrate(separate_open_set(features[enrolled], who, seed=seed))
    got = own if tracklets is None and wrong_answers(apart) > MANY_WRONG else calibrate(apart)
    strangers = float((best >= got.threshold)[~is_known].mean())
    rates = got.false_match_rate, strangers
    accuracies = [accuracy(value) for value in (named, own.threshold)]
    return OpenSet(accuracy(got.threshold), hindsight, *rates, *accuracies)


def row_of(name: str, draws: list[OpenSet]) -> str:
    """A row of the first table, printed as soon as it is there."""
    mean, gaps = np.mean(draws, axis=0), [one.hindsight - one.accuracy for one in draws]
    row = (
        f"| {name} | {mean[0]:.1f} | {mean[1]:.1f} | {np.mean(gaps):.1f} ({max(gaps):.1f}) |"
        f" {mean[2]:.1%}, {mean[3]:.1%} | {mean[4]:.1f} | {mean[5]:.1f} |"
    )
    print(row, flush=True)
    return row


def counted(features: np.ndarray, ids: np.ndarray, seed: int) -> tuple[int, float, float, float]:
    """One draw of the second: truth, estimate, low, high."""
    generator = np.random.default_rng(1000 + seed)
    kept = []
    for who in np.unique(ids):
        rows = generator.permutation(np.flatnonzero(ids == who))
        kept.append(rows[: max(2, round(len(rows) * generator.uniform(0.25, 1)))])
    rows = np.sort(np.concatenate(kept))
    features, ids = features[rows], ids[rows]
    people = generator.permutation(np.unique(ids))
    named, rest = np.split(people, [len(people) // 2])
    rest = rest[: max(3, round(len(rest) * generator.uniform(0.6, 1)))]
    is_named, is_rest = np.isin(ids, named), np.isin(ids, rest)
    names = np.unique(ids[is_named], return_inverse=True)[1]
    found = count_unnamed(features[is_named], names, features[is_rest])
    return len(rest), *found


def latency(count: int = 100_000, size: int = 128) -> str:
    """Milliseconds of one query, and seconds to fill and open, in the embedded engine."""
    from fastreid_cc.gallery.shelf import EdgeShelf

    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, size)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        shelf, start = EdgeShelf(Path(folder, "shelf"), size), time.perf_counter()
        shelf.add(x, [f"i{n}" for n in range(count)], [f"/p{n}.jpg" for n in range(count)])
        shelf.close()
        filled, start = time.perf_counter() - start, time.perf_counter()
        shelf = EdgeShelf(Path(folder, "shelf"))
        opened, took = time.perf_counter() - start, []
        for row in range(40):
            start = time.perf_counter()
            answer = shelf.nearest(x[row : row + 1], 10)[0]
            took.append(time.perf_counter() - start)
            assert answer[0].individual == f"i{row}"
        start = time.perf_counter()
        shelf.nearest(x[:200], 10)
        many = time.perf_counter() - start
        shelf.close()
    return (
        f"{count:,} x {size}: a query {1000 * np.median(took):.1f} ms (median of 40), "
        f"{1000 * min(took):.1f} at best, {5 * many:.1f} each of 200 together; filled in "
        f"{filled:.0f} s, opened in {opened:.1f} s"
    )


def main() -> None:
    """Prints both tables and the time of a query."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    made.add_argument("data_root", type=Path)
    made.add_argument("weights", type=Path)
    made.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    made.add_argument("--output", type=Path, default=Path("outputs/gallery"))
    made.add_argument("--no-latency", action="store_true")
    args = made.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    new = [
        "| set | accuracy | hindsight | gap, mean (largest) | false matches expected, found"
        " | by identities | by the gallery's own |"
    ]
    many = ["| set | individuals | estimate | interval holds the truth | mean width |"]
    for rows, columns in ((new, 7), (many, 5)):
        rows.append("|---" * columns + "|")
    for name in args.sets:
        cache = args.output / f"{name}.npz"
        features, paths = features_of_set(args.data_root / name, args.weights, cache)
        rule = Rule("identity", SETS[name])
        ids = np.array([rule(path) for path in paths])
        draws = [open_set(features, ids, seed) for seed in range(DRAWS)]
        new.append(row_of(name, draws))
        if name in TRACKLETS:
            rule = Rule("tracklet", TRACKLETS[name])
            tracks = np.unique([rule(path) for path in paths], return_inverse=True)[1]
            draws = [open_set(features, ids, seed, tracks) for seed in range(DRAWS)]
            new.append(row_of(f"{name}, by tracklets", draws))
        found = np.array([counted(features, ids, seed) for seed in range(DRAWS)])
        truth, middle, low, high = found.T
        holds = int(((low <= truth) & (truth <= high)).sum())
        width = float(((high - low) / middle).mean())
        many.append(
            f"| {name} | {truth.min():.0f} to {truth.max():.0f} | off by "
            f"{np.abs(middle / truth - 1).mean():.0%} | {holds} of {DRAWS} | {width:.0%} |"
        )
        print(many[-1], flush=True)
    print("\n" + "\n".join(new) + "\n\n" + "\n".join(many))
    if not args.no_latency:
        print("\n" + latency())


if __name__ == "__main__":
    main()
