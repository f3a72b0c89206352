"""one HTML page about a run, or several side by side"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import boot
from ..errors import WrongUse, printable
from ..files import write_atomically
from ..requirements import require_extra
from ._frame import at_least_1, make_parser, print_json, require_folder_of

#: Option -> (argument of `build_page`, default for one run, for several, what it counts).
COUNTS = {
    "queries": ("num_queries", 8, 8, "queries shown per test set"),
    "top": ("top", 10, 10, "answers shown per query"),
    "clusters": ("num_clusters", 6, 3, "clusters per sheet"),
    "outliers": ("num_outliers", 24, 12, "outliers shown per run"),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "report",
        "Writes one self-contained HTML page: what to watch, doubtful clusters, a threshold, a map,"
        " curves, outliers, retrieval, cameras, times, set-up."
        " It opens without a network and runs no script; it holds images of the data set."
        " Images need the data where the run found it (FASTREID_DATASETS as in training) and a"
        " checkpoint; features are extracted anew, which costs as much as one labelling and one"
        " evaluation.",
        gives_json=True,
    )
    text = "OUTPUT_DIR of a run; of several runs to compare them"
    made.add_argument("folders", nargs="+", metavar="RUN", type=Path, help=text)
    text = "report.html in the run's folder; comparison.html in the first one's, for several"
    made.add_argument("--out", type=Path, metavar="FILE", help=f"file to write (default: {text})")
    text = "heading of the page (default: the runs' folders)"
    made.add_argument("--title", default="", metavar="TEXT", help=text)
    text = "no image and no file name in the page; the figures of the images stay"
    made.add_argument("--no-images", action="store_true", help=text)
    text = "only what the run recorded, curves and set-up: needs no data and no checkpoint, seconds"
    made.add_argument("--recorded-only", action="store_true", help=text)
    text = "cpu or cuda (default: the run's)"
    made.add_argument("--device", default="", metavar="NAME", help=text)
    for name, (_, one, several, text) in COUNTS.items():
        fewer = f"; {several} with several runs" if several < one else ""
        text = f"{text} (default: {one}{fewer})"
        made.add_argument(f"--{name}", type=at_least_1, metavar="N", help=text)
    return made


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Reads the runs, writes the page, and says what was written.

    Raises:
        WrongUse: for a folder that holds no run.
        MissingPackage: without matplotlib.
        OSError: if the page cannot be written.
    """
    require_extra("report")
    from ..report import build_page, read_run
    from ..report.runs import names

    try:
        runs = [read_run(f, n) for f, n in zip(args.folders, names(args.folders), strict=True)]
    except ValueError as error:
        raise WrongUse(str(error)) from error
    several = len(runs) > 1
    out = args.out or args.folders[0] / ("comparison.html" if several else "report.html")
    require_folder_of(out)
    if not args.recorded_only:
        boot.activate()
        from ..plugin.offline.run_features import collect

        for entry in runs:
            entry.features = collect(entry.folder, device=args.device)
    counts = {
        argument: getattr(args, name) or (many if several else one)
        for name, (argument, one, many, _) in COUNTS.items()
    }
    folder = out.absolute().parent
    page = build_page(
        runs, title=args.title, show_images=not args.no_images, folder=folder, **counts
    )
    with write_atomically(out) as part:
        part.write_text(page, "utf-8")
    return {
        "file": str(out),
        "bytes": out.stat().st_size,
        "runs": [
            {
                "name": entry.name,
                "folder": str(entry.folder),
                "notes": entry.notes + entry.features.notes,
                "last": {key: entry.last(key) for key in sorted(entry.scalars)},
            }
            for entry in runs
        ],
    }


def main(argv: list[str]) -> int:
    """Writes the page and says where."""
    args = parser().parse_args(argv)
    found = run(args)
    if args.json:
        print_json(found)
        return 0
    print(f"{printable(found['file'])}: {found['bytes'] / 1e6:.1f} MB")
    for entry in found["runs"]:
        for text in entry["notes"]:
            print(printable(f"  {entry['name']}: {text}"))
    return 0
