"""images of nobody, or of people in other poses"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import boot
from ..data.items import fingerprint
from ..data.people import people_of
from ..errors import BadConfig, WrongUse, printable
from ._frame import at_least_1, make_parser

PEOPLE = "CC.GENERATE.PEOPLE"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "generate",
        "Trains the config's generator (CC.GENERATE.NAME) on its training images (DATASETS.NAMES) "
        "and writes OUT/images, OUT/origins.csv (what each was made of) and OUT/beside.png (made "
        "ones beside real ones: look at it first). The same command goes on where it was stopped.",
    )
    text = "YAML file, or a shipped config such as demo/mprl/generate"
    made.add_argument("config", metavar="CONFIG", help=text)
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    text = "images to make (default: all views, or as many as there are real images)"
    made.add_argument("--count", type=at_least_1, metavar="N", help=text)
    text = "OUT of an earlier call with these keys: draw by its generator (default: train one)"
    made.add_argument("--trained", type=Path, metavar="DIR", help=text)
    text = "make views of the images of DATASETS.TESTS as well; nothing is learnt from them"
    made.add_argument("--tests", action="store_true", help=text)
    text = "config keys on top of the file, e.g. CC.GENERATE.NAME dcgan"
    made.add_argument("pairs", nargs="*", metavar="KEY VALUE", help=text)
    return made


def main(argv: list[str]) -> int:
    """Trains, shows, writes."""
    args = parser().parse_intermixed_args(argv)
    if len(args.pairs) % 2:
        raise WrongUse(f"KEY VALUE come in pairs; found {printable(' '.join(args.pairs))}.")
    boot.activate()
    import torch

    from ..config import build_part
    from ..config.shipped import find_config
    from ..generators import workshop
    from ..plugin.offline.run_folder import read_config
    from ..registry import GENERATORS

    cfg = read_config(find_config(args.config), args.pairs)
    try:
        generator = build_part(cfg, GENERATORS, cfg.CC.GENERATE.NAME)
    except ValueError as error:
        raise BadConfig(str(error)) from error
    if args.trained and not (args.trained / workshop.CHECKPOINT).is_file():
        raise WrongUse(f"--trained {printable(args.trained)}: no {workshop.CHECKPOINT} in it.")
    photos = photos_of(cfg, generator, learns=not args.trained, with_tests=args.tests)
    on_cuda = cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available()
    device = "cuda" if on_cuda else "cpu"
    generator.prepare(photos, seed=cfg.CC.SEED, device=device, learns=not args.trained)
    count = count_of(generator, args.count, len(photos))
    if args.trained:
        steps = workshop.restore(generator, args.trained / workshop.CHECKPOINT)
        if steps < generator.num_steps:
            raise WrongUse(
                f"--trained {printable(args.trained)}: {steps} of {generator.num_steps} steps were"
                " made there. Finish that training first, by its own command."
            )
    with workshop.room_in(args.out):
        if not workshop.claim(args.out, order(cfg, args, photos, count)):
            first = generator.draw([0])[0].pixels
            workshop.require_room(args.out, count, first.shape[0] * first.shape[1])
            if not args.trained:
                workshop.train(generator, args.out)
            workshop.compare(generator, photos, args.out / workshop.BESIDE)
            workshop.write(generator, args.out, count)
    images = args.out / workshop.IMAGES
    print(f"{printable(images)}: {count:,} images by {generator.key}, from {len(photos):,}")
    print(f"{printable(args.out / workshop.ORIGINS)}: what each was made of")
    print(f"{printable(args.out / workshop.BESIDE)}: some of them beside real ones")
    return 0


def photos_of(cfg: Any, generator: Any, *, learns: bool, with_tests: bool) -> Any:
    """The images of a config, and who in which pose is on them, by the keys of CC.GENERATE.

    Raises:
        BadConfig: if there is no image, or the generator needs to know who is on them.
    """
    from ..generators.base import Photos
    from ..plugin.loading.datasets import configure_from
    from ..plugin.loading.target_images import collect_images, test_paths

    configure_from(cfg)
    images = collect_images(cfg)
    names, by = tuple(cfg.DATASETS.NAMES), cfg.CC.GENERATE.PEOPLE
    if not images.paths:
        raise BadConfig(f"DATASETS.NAMES={names} holds no image to start from.")
    if learns and generator.needs_people and not by:
        raise BadConfig(
            f"{generator.key} learns from pairs of one person: say by {PEOPLE} who is on an image"
            " (identities, a .csv of `clusters`, or a rule over paths)."
        )
    people = None
    if by == "identities":
        people = images.truth
        if people is None:
            raise BadConfig(f"{PEOPLE}=identities, but DATASETS.NAMES={names} knows none.")
    elif by:
        people = people_of(images.paths, by, PEOPLE)
    poses = poses_of(cfg, images.paths) if learns and generator.needs_poses else {}
    return Photos(images.paths, people, poses, test_paths(cfg) if with_tests else ())


def poses_of(cfg: Any, paths: Sequence[str]) -> dict[str, Any]:
    """Path -> key points of the images that have them.

    Raises:
        BadConfig: if CC.GENERATE.POSES names none. WrongUse: see `read_poses`.
    """
    from ..config import from_config
    from ..data.poses import Poses, read_poses
    from ..data.synthetic import SyntheticOptions, synthetic_poses

    source = cfg.CC.GENERATE.POSES
    if not source:
        raise BadConfig(
            "CC.GENERATE.POSES is empty: name the key points of the images, a file or folder of a"
            " pose estimator, or synthetic for SyntheticReID."
        )
    if source == "synthetic":
        return Poses(synthetic_poses(from_config(cfg, SyntheticOptions))).by_path(paths)
    return read_poses(Path(source).expanduser()).by_path(paths)


def count_of(generator: Any, wanted: int | None, num_photos: int) -> int:
    """Images to make.

    Raises:
        WrongUse: if the generator cannot make so many different ones.
    """
    most = generator.capacity
    if wanted is not None and most is not None and wanted > most:
        raise WrongUse(f"--count {wanted}: {generator.key} makes {most} of these images, no more.")
    return int(wanted or most or num_photos)


def order(cfg: Any, args: argparse.Namespace, photos: Any, count: int) -> dict[str, Any]:
    """All that the images depend on."""
    from ..config.keys import arguments
    from ..registry import GENERATORS

    part = GENERATORS.get(cfg.CC.GENERATE.NAME)
    people = "" if photos.people is None else fingerprint([str(who) for who in photos.people])
    return {
        part.key: arguments(cfg, part),
        PEOPLE: cfg.CC.GENERATE.PEOPLE,
        "CC.GENERATE.POSES": cfg.CC.GENERATE.POSES,
        "people": people,
        "CC.SEED": cfg.CC.SEED,
        "images": f"{len(photos)}, {fingerprint(photos.paths)}",
        "tests": f"{len(photos.shown)}, {fingerprint(photos.shown)}",
        "--trained": str(args.trained.absolute()) if args.trained else "",
        "--count": count,
    }
