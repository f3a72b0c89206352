"""Whose images they are: by one name, a rule over paths, or a table."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from ..data.naming import Rule
from ..errors import WrongUse, printable
from .embed import find_images


def add_names(parser: argparse.ArgumentParser, what: str, single: str) -> None:
    """Options that say whose images they are."""
    group = parser.add_mutually_exclusive_group()
    if single:
        group.add_argument(f"--{single}", default="", help=f"the {what} on all of them")
    told = f"reads the {what} off the path: a regex with one group, or folder:0"
    group.add_argument("--names", default="", metavar="RULE", help=told)


def named_images(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """(paths, the name of each) by --name, --names, or the table that IMAGES is.

    Raises:
        WrongUse: if none of them is given, or one does not fit.
    """
    if not args.images:
        raise WrongUse("name IMAGES, or a table.")
    if len(args.images) == 1 and args.images[0].suffix.lower() == ".csv":
        return _of_table(args.images[0])
    if name := getattr(args, "name", ""):
        paths = find_images(args.images)
        return paths, [name] * len(paths)
    if not args.names:
        raise WrongUse("whose images are they? Give --name, a rule with --names, or a table.")
    try:
        rule = Rule("name", args.names, "--names ")
    except ValueError as error:
        raise WrongUse(str(error)) from error
    paths, names = [], []
    for start in args.images:
        for path in find_images([start]):
            inside = Path(path).relative_to(start) if start.is_dir() else Path(Path(path).name)
            found = rule(inside.as_posix())
            if not found:
                raise WrongUse(f"--names {args.names!r} finds nothing in {printable(inside)}.")
            paths.append(path)
            names.append(found)
    return paths, names


def _of_table(path: Path) -> tuple[list[str], list[str]]:
    """The images of a table and their clusters; outliers are left out."""
    if not path.is_file():
        raise WrongUse(f"{printable(path)}: no such file.")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"image", "cluster"} <= set(rows[0]):
        raise WrongUse(f"{printable(path)}: wanted are the columns image and cluster.")
    kept = [row for row in rows if row["cluster"] not in ("", "-1")]
    return [row["image"] for row in kept], [row["cluster"] for row in kept]
