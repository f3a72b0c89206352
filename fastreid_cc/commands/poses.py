"""key points: canonical poses, drawings; views fused"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import boot
from ..data.checks import fault
from ..data.naming import list_images
from ..data.poses import (
    canonical_poses,
    draw_skeleton,
    fusion,
    pose_map,
    read_poses,
    resize_keypoints,
    write_coco,
)
from ..data.poses.sheets import canonical_sheet, tile
from ..errors import BadConfig, MissingData, WrongUse, printable
from ..files import write_atomically
from ._frame import STATUSES, Formatter, at_least_1, make_parser, print_json, table

SHOWN = 32  # people on a sheet


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "poses",
        "Works with key points that a pose estimator wrote (OpenPose, AlphaPose, COCO, the CSV of "
        "Pose-Transfer), or with those of the generated people. Views of people in these poses are "
        "made by `generate`, or by a tool of your own as <image>_to_<k>.png.",
    )
    text = "what to do; `poses WHAT --help` tells its options"
    verbs = made.add_subparsers(dest="verb", required=True, metavar="WHAT", help=text)

    def verb(name: str, text: str) -> Any:
        return verbs.add_parser(
            name, help=text, description=text, epilog=STATUSES, formatter_class=Formatter,
            allow_abbrev=False,
        )  # fmt: skip

    points = "file or folder of key points; the form is found by what is in it"
    size = "of the pictures that the key points are in, in pixels"
    one = verb("world", "the key points of SyntheticReID, as COCO has them")
    text = "YAML file, or a shipped config such as demo/supervised"
    one.add_argument("config", metavar="CONFIG", help=text)
    text = "also redraw every person in the 8 canonical poses, into OUT/views: an upper bound of "
    text += "what a generator can do, and no result"
    one.add_argument("--views", action="store_true", help=text)
    text = "a config key on top of the file's; again for another (default: none)"
    one.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help=text
    )
    one = verb("canonical", "the poses that stand for all, by k-means over key points")
    one.add_argument("poses", metavar="POSES", help=points)
    text = "how many"
    one.add_argument("--count", type=at_least_1, default=8, metavar="K", help=text)
    one.add_argument("--seed", type=int, default=0, help="of k-means")
    one.add_argument("--size", type=at_least_1, nargs=2, default=[128, 64], metavar=("H", "W"),
                     help=size)  # fmt: skip
    one = verb("render", "draws skeletons, and heat maps for a generator of your own")
    one.add_argument("poses", metavar="POSES", help=points)
    text = "draw over the images of this folder, found by their names, and not on black"
    one.add_argument("--images", type=Path, metavar="DIR", help=text)
    one.add_argument("--size", type=at_least_1, nargs=2, default=[128, 64], metavar=("H", "W"),
                     help=size)  # fmt: skip
    text = "also write <image>.npy: float16 [18, H, W], a Gaussian for each point"
    one.add_argument("--maps", action="store_true", help=text)
    for name in ("world", "canonical", "render"):
        text = "folder to write; made if it is not there"
        verbs.choices[name].add_argument(
            "--out", type=Path, required=True, metavar="DIR", help=text
        )
    one = verb("fuse", "measures a network on images joined with their generated views")
    text = "the network of real images: OUTPUT_DIR of a run, or a config with MODEL.WEIGHTS"
    one.add_argument("run", metavar="RUN", help=text)
    one.add_argument("--views", required=True, metavar="DIR", help="folder of <image>_to_<k>.png")
    text = "the network of generated views (default: RUN)"
    one.add_argument("--other", metavar="RUN", default="", help=text)
    text = "numpy file that keeps the views' features between calls"
    one.add_argument("--cache", type=Path, metavar="FILE.npz", help=text)
    one.add_argument("--json", action="store_true", help="print one JSON object instead")
    return made


def main(argv: list[str]) -> int:
    """Does one of the four things."""
    args = parser().parse_args(argv)
    return {"world": world, "canonical": canonical, "render": render, "fuse": fuse}[args.verb](args)


def world(args: argparse.Namespace) -> int:
    """Writes poses.json, and with --views the canonical poses and views."""
    boot.activate()
    from ..config import from_config
    from ..config.shipped import find_config
    from ..data.synthetic import SyntheticOptions, synthetic_poses, write_views
    from ..plugin.offline.run_folder import read_config

    cfg = read_config(find_config(args.config), [word for pair in args.set for word in pair])
    try:
        options = from_config(cfg, SyntheticOptions)
    except ValueError as error:
        raise BadConfig(str(error)) from error
    found = synthetic_poses(options)
    out = _made(args.out)
    write_coco(out / "poses.json", [(f"{stem}.jpg", points) for stem, points in found.items()])
    print(f"{printable(out / 'poses.json')}: {len(found):,} poses of {options.folder}")
    if args.views:
        learnt = [stem for stem in found if int(stem[:4]) <= options.train_ids]
        near = _write_canonical(
            out, {stem: found[stem] for stem in learnt}, (options.height, options.width), 8, 0
        )
        count = write_views(options, near, _made(out / "views"))
        print(f"{printable(out / 'views')}: {count:,} views")
    return 0


def canonical(args: argparse.Namespace) -> int:
    """Writes canonical.json and canonical.png."""
    if args.seed < 0:
        raise WrongUse("--seed must be 0 or more.")
    poses = read_poses(args.poses).of
    _write_canonical(_made(args.out), poses, tuple(args.size), args.count, args.seed)
    return 0


def _write_canonical(
    out: Path, poses: dict[str, np.ndarray], size: tuple[int, int], count: int, seed: int
) -> list[str]:
    """Writes the poses and their sheet, prints a table, and tells the images nearest to them."""
    stems, points = list(poses), np.stack(list(poses.values()))
    found = canonical_poses(points, count=count, seed=seed)
    near = [stems[row] for row in found.nearest.tolist()]
    write_coco(out / "canonical.json", [(f"{k}.png", p) for k, p in enumerate(found.poses, 1)])
    with write_atomically(out / "canonical.png") as part:
        canonical_sheet(found, points, size).save(part, "PNG")
    sizes = np.bincount(found.labels[found.labels >= 0], minlength=count)
    rows = [[k, n, printable(stem)] for k, (n, stem) in enumerate(zip(sizes, near, strict=True), 1)]
    print(table([["pose", "images", "nearest image"], *rows]))
    unplaced = int((found.labels < 0).sum())
    if unplaced:
        print(f"{unplaced:,} of {len(stems):,} images show no neck or no hip: left out")
    print(f"{printable(out / 'canonical.json')}: {count} poses; canonical.png: look at them")
    return near


def render(args: argparse.Namespace) -> int:
    """Writes a drawing of each pose, and a sheet of the first ones."""
    poses, size = read_poses(args.poses).of, tuple(args.size)
    images: dict[str, Path] = {}
    if args.images is not None:
        images = {Path(name).stem: args.images / name for name in list_images(args.images)}
        if not set(images) & set(poses):
            raise WrongUse(
                f"--images {printable(args.images)} holds no image that has a pose; looked for"
                f" names like {printable(min(poses))}.jpg."
            )
    out, shown = _made(args.out), []
    for stem, points in poses.items():
        over, own = None, points
        if images:
            if stem not in images:
                continue
            if (why := fault(str(images[stem]))) is not None:
                raise MissingData(f"{printable(images[stem])} cannot be read: {printable(why)}.")
            with Image.open(images[stem]) as image:
                over = image.convert("RGB")
            own = resize_keypoints(points, (over.height, over.width), size)
        drawn = draw_skeleton(own, size, over)
        drawn.save(out / f"{stem}.png")
        if args.maps:
            np.save(out / f"{stem}.npy", pose_map(own, size).astype(np.float16))
        shown.append(drawn)
    sheet = shown[:SHOWN]
    tile([sheet[i : i + 8] for i in range(0, len(sheet), 8)]).save(out / "sheet.png")
    print(f"{printable(out)}: {len(shown):,} poses drawn; sheet.png shows the first {len(sheet)}")
    return 0


def fuse(args: argparse.Namespace) -> int:
    """Prints mAP and Rank-1 of the images alone, of their views, and of both."""
    boot.activate()
    from ..plugin.offline.view_features import sets_with_views
    from ..report.ranking import rank

    sets = sets_with_views(args.run, args.other or args.run, args.views, cache=args.cache)
    told: dict[str, Any] = {}
    for test, views, missing in sets:
        rows = {"images alone": rank(test)}
        for what, real in (("views alone", None), ("images and views", test.features)):
            for how in fusion.HOW:
                joined = fusion.fuse(views, how, real=real)
                rows[f"{what}, {how}"] = rank(replace(test, features=joined))
        told[test.name] = {
            "views": views.shape[1],
            "missing_views": missing,
            "rows": {
                name: {"mAP": found.mean_precision, "rank1": found.rank1}
                for name, found in rows.items()
            },
        }
    if args.json:
        print_json(told)
        return 0
    for name, found in told.items():
        print(f"{printable(name)}: {found['views']} views, {found['missing_views']:,} missing\n")
        body = [[row, f"{v['mAP']:.1f}", f"{v['rank1']:.1f}"] for row, v in found["rows"].items()]
        print(table([["features", "mAP", "Rank-1"], *body]))
    return 0


def _made(folder: Path) -> Path:
    """A folder, made if it is not there.

    Raises:
        WrongUse: if its place is missing or taken.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongUse(f"--out {printable(folder)}: {printable(error.strerror)}.") from error
    return folder
