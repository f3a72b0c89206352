"""How near learnt views of unseen people come to real pictures of them in that pose.

    python projects/demo/view_quality.py outputs/demo/pn-gan/learnt

DIR is what `generate configs/demo/pn-gan/generate.yml --out DIR` wrote. Of each test person every
picture of a camera is turned into the pose of every other one of the same camera; the L1 distance
of values in -1..1 to that other one, over the pixels of the person, stands beside that of the
picture itself (copying) and of the mean training picture of that pose. Targets that something
hides are left out. Needs the generated data set; the test people were not learnt from.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from compare import ROOT, read
from PIL import Image

from fastreid_cc.commands.generate import photos_of
from fastreid_cc.config import build_part, from_config
from fastreid_cc.data.poses import canonical_poses, resize_keypoints
from fastreid_cc.data.synthetic import SyntheticOptions, build_synthetic, draw_figure, key_points
from fastreid_cc.data.synthetic.build import World, name_of
from fastreid_cc.data.synthetic.picture import replay
from fastreid_cc.generators import workshop
from fastreid_cc.generators.base import read as read_image
from fastreid_cc.registry import GENERATORS

CONFIG = ROOT / "configs/demo/pn-gan/generate.yml"
CHUNK = 128


def people_of(world: World, folder: Path, size: tuple[int, int]) -> dict[Any, list[Any]]:
    """(test person, camera) -> (pixels, key points, mask or None if hidden) of each picture."""
    found = defaultdict(list)
    for shot in world.shots:
        _, person, camera, _ = shot
        if person <= world.options.train_ids:
            continue
        pose, cover = replay(*world.of(shot))
        figure = np.asarray(draw_figure(world.people[person], pose, *world.size))
        alpha = Image.fromarray(figure[..., 3])
        mask = np.asarray(alpha.resize(size[::-1], Image.Resampling.BOX)) > 127
        points = key_points(world.people[person], pose, *world.size, cover)
        points = resize_keypoints(points, world.size, size)
        pixels = read_image(str(folder / name_of(shot)), *size)
        found[person, camera].append((pixels, points, None if cover else mask))
    return found


def mean_pictures(made: Any, chosen: Any) -> np.ndarray:
    """f64 [K, H, W, 3]: the mean training picture of each canonical pose."""
    rows = np.array(list(made.poses))
    return np.stack(
        [
            made.photos.pixels(rows[chosen.labels == k], made.height, made.width).mean(0)
            for k in range(made.views)
        ]
    )


def nearest(points: np.ndarray, known: np.ndarray, labels: np.ndarray) -> int:
    """The canonical pose of the training image whose key points lie nearest."""
    shared = (points[:, 2] > 0) & (known[..., 2] > 0)
    distance = np.square(known[..., :2] - points[:, :2]).sum(-1)
    mean = np.where(shared, distance, 0).sum(1) / np.maximum(shared.sum(1), 1)
    mean[labels < 0] = np.inf
    return int(labels[mean.argmin()])


def measure(folder: Path, data_root: Path) -> dict[str, float]:
    """Masked L1 of the learnt views and of both controls; the number of pairs."""
    cfg = read(CONFIG)
    made = build_part(cfg, GENERATORS, cfg.CC.GENERATE.NAME)
    made.prepare(photos_of(cfg, made, learns=True, with_tests=False), seed=cfg.CC.SEED)
    workshop.restore(made, folder / workshop.CHECKPOINT)
    known = np.stack(list(made.poses.values()))
    chosen = canonical_poses(known, count=made.views, seed=made.seed % 2**32)
    means = mean_pictures(made, chosen)

    options = from_config(cfg, SyntheticOptions)
    pictures = people_of(
        World(options), build_synthetic(data_root, options), (made.height, made.width)
    )
    pairs = [
        (*one[:1], *other)
        for own in pictures.values()
        for one, other in permutations(own, 2)
        if other[2] is not None
    ]
    rows: dict[str, list[float]] = defaultdict(list)
    for first in range(0, len(pairs), CHUNK):
        some = pairs[first : first + CHUNK]
        views = made.in_poses(np.stack([p[0] for p in some]), np.stack([p[2] for p in some]))
        for view, (source, target, points, mask) in zip(views, some, strict=True):
            mean = means[nearest(points, known, chosen.labels)]
            for name, picture in (("view", view), ("copy", source), ("mean of the pose", mean)):
                away = np.abs(picture.astype(np.float64) - target)[mask]
                rows[name].append(float(away.mean()) / 127.5)
    found = {name: float(np.mean(values)) for name, values in rows.items()}
    better = {
        f"view below {name}": float(np.mean(np.less(rows["view"], rows[name])))
        for name in ("copy", "mean of the pose")
    }
    return {**found, **better, "pairs": len(pairs)}


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `generate` wrote")
    args = parser.parse_args()
    from fastreid.data import build as data_build

    print(json.dumps(measure(args.folder, Path(data_build._root)), indent=2))


if __name__ == "__main__":
    main()
