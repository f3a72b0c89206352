"""a run's pseudo-labels as a table and as folders of links"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import boot
from ..errors import ClearError, WrongUse, counted, printable
from ..files import folder_name, make_folder_atomically
from ..labels.kept_names import keep_names
from ._frame import add_checkpoint, make_parser, print_json, require_folder_of

NAME_LENGTH = 80


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "clusters",
        "Writes a new folder: clusters.csv (image, cluster, camera; -1 is an outlier) and one "
        "folder of links per cluster. The labels are those of the last labelling before the "
        "checkpoint; the images are found by the run's config and FASTREID_DATASETS.",
        gives_json=True,
    )
    made.add_argument("run", metavar="RUN", help="OUTPUT_DIR of a label-free run")
    text = "config keys that changed since, e.g. CC.FOLDER.ROOT"
    made.add_argument("pairs", nargs="*", metavar="KEY VALUE", help=text)
    text = "folder to make (default: clusters in the run's folder)"
    made.add_argument("--out", metavar="DIR", help=text)
    add_checkpoint(made)
    made.add_argument("--csv-only", action="store_true", help="the table alone, no folders")
    text = "clusters.csv of an earlier run, whose names stay (default: numbers by first image)"
    made.add_argument("--names-of", metavar="FILE", type=Path, help=text)
    made.add_argument("--copy", action="store_true", help="copies of the images instead of links")
    return made


def safe_name(path: str, row: int) -> str:
    """A file name for an image: its row, then what is harmless of its own name, at most so long."""
    own = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(path))
    return f"{row:06d}_{own[-NAME_LENGTH:]}"


def write_table(path: Path, images: Sequence[tuple[str, int]], labels: np.ndarray) -> None:
    """Writes image,cluster,camera; control characters and backslashes of a path are escaped.

    Paths are absolute, so no cell begins with a sign that spreadsheets take for a formula.
    """
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("image", "cluster", "camera"))
        for (image, camera), label in zip(images, labels.tolist(), strict=True):
            table.writerow((cell(image), label, camera))


def cell(image: str) -> str:
    """An image's path as the table names it."""
    return printable(os.path.abspath(image).replace("\\", "\\\\"))


def earlier_names(path: Path, images: Sequence[tuple[str, int]]) -> tuple[np.ndarray, int]:
    """The cluster of each image in an earlier table, i64 [N], -1 = none; its largest name + 1.

    Raises:
        WrongUse: if it is no such table, or no image is in it.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            found = {row["image"]: int(row["cluster"]) for row in csv.DictReader(stream)}
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise WrongUse(f"--names-of {printable(path)} is no clusters.csv: {error}.") from error
    before = np.array([found.get(cell(image), -2) for image, _ in images], np.int64)
    if (before < -1).all():
        raise WrongUse(
            f"--names-of {printable(path)} names none of the {len(images)} images, e.g. not"
            f" {cell(images[0][0])}. Paths must be the same in both."
        )
    return np.maximum(before, -1), max(found.values()) + 1


def write_folders(
    base: Path, images: Sequence[tuple[str, int]], labels: np.ndarray, *, copy: bool
) -> None:
    """Makes `cluster_00012_34_images/` and `outliers/` below `base`, an image in exactly one."""
    sizes = np.bincount(labels[labels >= 0])
    for row, ((image, _), label) in enumerate(zip(images, labels.tolist(), strict=True)):
        folder = base / folder_name(label, sizes[label])
        folder.mkdir(exist_ok=True)
        target, place = os.path.abspath(image), folder / safe_name(image, row)
        shutil.copyfile(target, place) if copy else place.symlink_to(target)


def main(argv: list[str]) -> int:
    """Reads labels and images, writes the folder whole or not at all."""
    args = parser().parse_intermixed_args(argv)
    out = Path(args.out) if args.out else Path(args.run) / "clusters"
    boot.activate()
    images, labels, told = read(args.run, args.checkpoint, args.pairs)
    if out.exists() or out.is_symlink():
        raise WrongUse(f"{printable(out)} exists already: remove it, or name another --out.")
    require_folder_of(out)
    if args.names_of:
        before, first_new = earlier_names(args.names_of, images)
        labels = keep_names(labels, before, first_new=first_new)
        kept = np.isin(np.unique(labels[labels >= 0]), before)
        told |= {"kept_names": int(kept.sum()), "new_names": int((~kept).sum())}
    with make_folder_atomically(out) as part:
        write_table(part / "clusters.csv", images, labels)
        if not args.csv_only:
            write_folders(part, images, labels, copy=args.copy)
    told |= {"out": str(out)}
    if args.json:
        print_json(told)
    else:
        print(
            f"{printable(out)}: {counted(told['clusters'], 'cluster')},"
            f" {counted(told['outliers'], 'outlier')} of {told['images']:,} images,"
            f" labels of {printable(told['checkpoint'])}"
        )
        if args.names_of:
            print(f"{told['kept_names']:,} names kept, {told['new_names']:,} new")
    return 0


def read(
    run: str, checkpoint: str, pairs: Sequence[str]
) -> tuple[list[tuple[str, int]], np.ndarray, dict[str, Any]]:
    """A run's (image, camera)s, their labels i64 [N], and the figures to print."""
    from ..plugin.loading.datasets import configure_from
    from ..plugin.loading.target_images import collect_images
    from ..plugin.offline import run_folder
    from ..plugin.trainer.checkpoint_state import labels_of

    if not Path(run).is_dir():
        raise WrongUse(f"{printable(run)}: no such folder.")
    cfg = run_folder.read_config(run, pairs)
    path = run_folder.find_checkpoint(run, checkpoint)
    content = run_folder.read_checkpoint(path)
    if "cc" not in content:
        raise ClearError(f"{printable(path)} holds no pseudo-labels: the run was not label-free.")
    configure_from(cfg, draw=False)
    paths, cameras = collect_images(cfg)[:2]
    labels = labels_of(content["cc"], paths)
    if labels is None:
        raise ClearError(f"{printable(path)} was saved before the first labelling (warm-up).")
    told = {
        "checkpoint": str(path),
        "epoch": content.get("epoch"),
        "eps": labels.eps,
        "images": len(paths),
        "clusters": labels.num_clusters,
        "outliers": labels.num_outliers,
    }
    return list(zip(paths, cameras.tolist(), strict=True)), labels.labels, told
