"""pseudo-labels from a file of features, without fastreid"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WrongUse, counted, printable
from ..files import write_atomically
from ..labeling.eps import stabilities
from ..labeling.pseudo_labeler import PseudoLabeler
from ..registry import CLUSTERERS, DISTANCES, NEIGHBORS, REFINERS, Registry
from ..requirements import require_extra
from ..structures import PseudoLabels
from ._frame import make_parser, require_folder_of, table

ACTIVATES = False  # parts of `--import` come without the plug-in

# option -> the constructor argument it sets, in whichever of the chosen parts have it
OPTIONS: dict[str, tuple[type, str]] = {
    "k1": (int, "neighbours per image, itself included; for cosine, 0 = all pairs in range"),
    "k2": (int, "neighbours averaged by query expansion, itself included; 1 is none"),
    "eps": (float, "distance up to which two images are linked"),
    "min_samples": (int, "images within eps that make a core image, itself included"),
    "auto_rho": (float, "if above 0, eps is the mean of the nearest pairs, this share of all"),
    "num_clusters": (int, "number of clusters; at most the number of images"),
    "min_size": (int, "images a cluster must have"),
    "min_similarity": (float, "cosine below which two images are not linked"),
    "probes": (int, "cells searched per query; 0 = a tenth of them. Too few merge clusters"),
    "precision": (str, "number format of the product; auto = bfloat16 where it is faster"),
    "seed": (int, "seed of what is drawn"),
}
METAVARS = {int: "N", float: "X", str: "NAME"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "label",
        "Clusters features into pseudo-labels: -1 is an outlier, 0..C-1 a cluster. An option that "
        "none of the chosen parts has is an error.",
    )
    text = ".npy of floating point features [N, D], as `embed` writes them"
    made.add_argument("features", metavar="FEATURES.npy", help=text)
    text = ".npz to write: labels [N], eps, settings, seconds"
    made.add_argument("--out", required=True, metavar="LABELS.npz", help=text)
    text = "also write a table image,cluster; needs the table of images beside the features"
    made.add_argument("--csv", metavar="FILE.csv", help=f"{text} (default: none)")
    text = "table whose column `image` names the N images (default: FEATURES.csv, if it is there)"
    made.add_argument("--images", metavar="FILE.csv", help=text)
    text = ".npy of integer camera ids [N] (default: none; some parts need them)"
    made.add_argument("--cams", metavar="CAMERAS.npy", help=text)
    for family, registry, default, text in (
        ("neighbors", NEIGHBORS, "exact", "how neighbours are searched"),
        ("distance", DISTANCES, "jaccard", "distance between images, if the clusterer takes one"),
        ("cluster", CLUSTERERS, "dbscan", "how images become clusters"),
    ):
        made.add_argument(f"--{family}", choices=registry.names(), default=default, help=text)
    refiners = [name for name in REFINERS.names() if not REFINERS.get(name).needs_training]
    text = "what changes the labels afterwards; again for another (default: nothing)"
    made.add_argument("--refine", choices=refiners, action="append", default=[], help=text)
    for name, (kind, text) in OPTIONS.items():
        option, shown = "--" + name.replace("_", "-"), METAVARS[kind]
        made.add_argument(option, type=kind, metavar=shown, help=f"{text} {_defaults_of(name)}")
    text = "threads to use (default: torch's number)"
    made.add_argument("--threads", type=int, metavar="N", help=text)
    text = "also cluster at these eps, and print a table (default: no sweep)"
    made.add_argument("--sweep", metavar="FROM:TO:STEP", help=text)
    text = "write the sweep's table to STEM.txt and its plot to STEM.svg (default: neither)"
    made.add_argument("--report", metavar="STEM", help=text)
    made.add_argument("--quiet", action="store_true", help="no progress bars, no summary")
    return made


def _defaults_of(name: str) -> str:
    """The default of an argument in each part that has it."""
    found: dict[str, list[str]] = {}
    for registry in (NEIGHBORS, DISTANCES, CLUSTERERS, REFINERS):
        for part in registry.names():
            parameters = registry.parameters(part)
            if name in parameters and not getattr(registry.get(part), "needs_training", False):
                found.setdefault(str(parameters[name]), []).append(part)
    stated = "; ".join(f"{', '.join(parts)} {value}" for value, parts in found.items())
    return f"(default: {stated})"


def build_parts(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The chosen parts with the given options, and their settings.

    Raises:
        ValueError: for an option that no part has, or a value out of range.
    """
    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    used: set[str] = set()
    settings: dict[str, Any] = {}

    def build(registry: Registry, name: str) -> Any:
        parameters = registry.parameters(name)
        values = {key: given.get(key, default) for key, default in parameters.items()}
        used.update(set(given) & set(parameters))
        settings[registry.key] = {"name": name, **values}
        return registry.get(name)(**values)

    clusterer = build(CLUSTERERS, args.cluster)
    parts: dict[str, Any] = {"clusterer": clusterer}
    if clusterer.consumes != "features":
        parts["neighbors"] = build(NEIGHBORS, args.neighbors)
    if clusterer.consumes == "distances":
        parts["distance"] = build(DISTANCES, args.distance)
    parts["refiners"] = [build(REFINERS, name) for name in args.refine]
    unused = sorted(set(given) - used)
    if unused:
        options = ", ".join("--" + name.replace("_", "-") for name in unused)
        names = [s["name"] for s in settings.values()] + args.refine
        raise ValueError(
            f"{options}: no part chosen here has this option ({', '.join(dict.fromkeys(names))});"
            " `label --help` says which have it."
        )
    return parts, settings


def sweep_values(text: str) -> list[float]:
    """FROM:TO:STEP as the values in between, both ends included.

    Raises:
        ValueError: if the text is not three numbers with 0 < FROM <= TO <= 1 and STEP > 0.
    """
    try:
        first, last, step = (float(word) for word in text.split(":"))
    except ValueError as error:
        raise ValueError(f"--sweep {text}: want FROM:TO:STEP, e.g. 0.4:0.7:0.05") from error
    if not (0 < first <= last <= 1 and step > 0):
        raise ValueError(f"--sweep {text}: want 0 < FROM <= TO <= 1 and STEP > 0")
    count = int(np.floor((last - first) / step + 1e-9)) + 1
    return [round(first + step * at, 6) for at in range(count)]


def _load(path: str, kind: str) -> np.ndarray:
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a plain .npy array: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kind:
        found = getattr(array, "dtype", "an .npz archive")
        wanted = "floating point features [N, D]" if kind == "f" else "integers [N]"
        raise ValueError(f"{path}: found {found}; wanted a .npy of {wanted}.")
    return array


def read_images(args: argparse.Namespace, count: int) -> list[str] | None:
    """Names of the images, from the table beside the features; None where there is none.

    Raises:
        ValueError: if a table is asked for and there is none, or it is of other images.
    """
    beside = Path(args.features).with_suffix(".csv")
    path = Path(args.images) if args.images else beside
    if not path.is_file():
        if args.images or args.csv:
            raise ValueError(
                f"{printable(path)}: no such table of images. `embed` writes one beside its"
                " features; or name a .csv with a column `image` by --images."
            )
        return None
    with path.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        if "image" not in (rows.fieldnames or ()):
            found = printable(", ".join(rows.fieldnames or ()))
            raise ValueError(f"{printable(path)} has no column `image`, found: {found or 'none'}.")
        images = [row["image"] for row in rows]
    if len(images) != count:
        raise ValueError(
            f"{printable(path)} names {len(images)} images, but {printable(args.features)} holds"
            f" {count} rows: they are not of one run of `embed`. Make them anew."
        )
    return images


def write_table(path: Path, images: Sequence[str], labels: np.ndarray) -> None:
    """Writes image,cluster; -1 is an outlier."""
    with write_atomically(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("image", "cluster"))
        table.writerows(zip(images, labels.tolist(), strict=True))


def save(path: Path, result: PseudoLabels, settings: dict[str, Any]) -> None:
    """Writes labels i64 [N], eps f64 (nan without one), and settings and seconds as JSON text."""
    with write_atomically(path) as part, part.open("wb") as stream:
        np.savez(
            stream,
            labels=result.labels,
            eps=np.float64("nan" if result.eps is None else result.eps),
            settings=json.dumps(settings),
            seconds=json.dumps(result.seconds),
        )


def run(args: argparse.Namespace) -> PseudoLabels:
    """Labels, writes, and sweeps if asked."""
    out = Path(args.out)
    for path in filter(None, (out, args.csv, args.report)):
        require_folder_of(Path(path))
    if args.threads is not None:
        import torch

        if args.threads < 1:
            raise ValueError(f"--threads {args.threads} must be at least 1")
        torch.set_num_threads(args.threads)
    values = sweep_values(args.sweep) if args.sweep else []
    parts, settings = build_parts(args)
    start = time.perf_counter()
    features = np.array(_load(args.features, "f"))
    images = read_images(args, len(features))
    cameras = None if args.cams is None else np.array(_load(args.cams, "iu"))
    if args.report:
        require_extra("report")
    labeler = PseudoLabeler(**parts)
    loaded = time.perf_counter()
    result, *others = labeler.sweep(features, values, cameras, progress=not args.quiet)
    result.seconds["load"] = loaded - start
    save(out, result, settings)
    if args.csv and images is not None:
        write_table(Path(args.csv), images, result.labels)
    if values:
        text = sweep_table(others)
        if not args.quiet:
            print(text)
        if args.report:
            with write_atomically(args.report + ".txt") as part:
                part.write_text(text + "\n")
            with write_atomically(args.report + ".svg") as part:
                plot_sweep(others, part)
    return result


def sweep_table(found: Sequence[PseudoLabels]) -> str:
    """Labels at ascending eps as text: a heading, then one line per eps."""
    lines = [("eps", "clusters", "outliers", "share", "sizes min/median/max", "stability")]
    for entry, stability in zip(found, stabilities(found), strict=True):
        sizes = np.bincount(entry.labels[entry.labels >= 0]) if entry.num_clusters else np.zeros(1)
        spread = (sizes.min(), np.median(sizes), sizes.max())
        share = entry.num_outliers / max(1, len(entry.labels))
        counts = f"{entry.num_clusters:,}", f"{entry.num_outliers:,}", f"{share:.1%}"
        sizes_text = "/".join(f"{size:g}" for size in spread)
        stable = f"{stability:.3f}" if np.isfinite(stability) else "-"  # the last has no next one
        lines.append((f"{entry.eps:.3f}", *counts, sizes_text, stable))
    return table(lines)


def plot_sweep(found: Sequence[PseudoLabels], path: Path) -> None:
    """Draws clusters, outliers and stability over eps into an SVG file."""
    from matplotlib.figure import Figure  # pyplot would choose a window system

    figure = Figure(figsize=(7, 7), layout="constrained")
    curves: dict[str, list[float]] = {
        "clusters": [entry.num_clusters for entry in found],
        "outliers": [entry.num_outliers for entry in found],
        "stability (ARI with the next eps)": stabilities(found),
    }
    for panel, title in zip(figure.subplots(3, sharex=True), curves, strict=True):
        panel.plot([entry.eps for entry in found], curves[title], marker="o")
        panel.set_title(title, loc="left")
        panel.set_ylim(bottom=min(0, *curves[title]))
    panel.set_xlabel("eps")
    figure.savefig(path, format="svg", metadata={"Date": None})


def hint(result: PseudoLabels, distance: str, k1: int | None) -> str:
    """A line for who finds nobody apart in a few images; "" where all is well."""
    images = len(result.labels)
    used = DISTANCES.parameters(distance).get("k1", 0) if k1 is None else k1
    if result.num_clusters > 1 or images < 3 or 4 * used < images:
        return ""
    return (
        f"Nobody is told apart: --k1 {used} compares {used} neighbours of each of {images} images."
        f" Try --k1 {max(2, images // 8)} --k2 2.\n"
    )


def main(argv: list[str]) -> int:
    """Labels, and says what was found; a fault in the options or the arrays is WrongUse."""
    args = parser().parse_args(argv)
    try:
        result = run(args)
    except ValueError as error:
        raise WrongUse(str(error)) from error
    if not args.quiet:
        stages = ", ".join(f"{name} {value:.2f} s" for name, value in result.seconds.items())
        eps = "" if result.eps is None else f" at eps {result.eps:.4g}"
        print(
            f"{counted(result.num_clusters, 'cluster')}, {counted(result.num_outliers, 'outlier')}"
            f" of {len(result.labels):,} images{eps}; {stages}"
        )
        print(hint(result, args.distance, args.k1), end="")
        swept = (args.report + end for end in (".txt", ".svg") if args.report and args.sweep)
        print(f"wrote {', '.join(printable(p) for p in (args.out, args.csv, *swept) if p)}")
    return 0
