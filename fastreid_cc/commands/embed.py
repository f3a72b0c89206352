"""features of any images by a trained network, for `label`"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import boot
from ..data.checks import fault
from ..data.fit_and_pad import PADDING
from ..data.naming import EXTENSIONS, list_images
from ..data.pixels import NORMALISED, normalised, read_pixels
from ..errors import ClearError, MissingData, WrongUse, printable
from ..files import write_atomically
from ..requirements import require_extra
from ._frame import add_checkpoint, at_least_1, make_parser, print_json, require_folder_of


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "embed",
        "Writes features.npy, float32 [N, D] of unit length, and features.csv with the N images in"
        " the same order. `label features.npy --out labels.npz --csv labels.csv` goes on from"
        " there; two images show the same individual the more, the larger their inner product.",
        gives_json=True,
    )
    text = "the network: OUTPUT_DIR of a run, an .onnx file of `export`, or a config (its path or"
    text += " short name) with MODEL.WEIGHTS"
    made.add_argument("model", metavar="MODEL", help=text)
    text = f"folders, searched with all below them, and files: {', '.join(EXTENSIONS)}"
    made.add_argument("images", metavar="IMAGES", nargs="+", type=Path, help=text)
    text = "file to write, its table beside it"
    made.add_argument("--out", type=Path, default=Path("features.npy"), metavar="FILE", help=text)
    text = "a config key on top of the run's or the config's; again for another (default: none)"
    made.add_argument(
        "--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help=text
    )
    add_checkpoint(made)
    text = "images in a batch"
    made.add_argument("--batch", type=at_least_1, default=64, metavar="N", help=text)
    text = "leave out images that cannot be read, instead of stopping at them"
    made.add_argument("--skip-unreadable", action="store_true", help=text)
    return made


def find_images(named: Sequence[Path]) -> list[str]:
    """Paths of the images in files and folders: in the order named, a folder's sorted.

    Raises:
        WrongUse: if something named is not there, is no image, or holds none.
    """
    found: list[str] = []
    for path in named:
        if path.is_dir():
            inside = [str(path / name) for name in list_images(path)]
            if not inside:
                raise WrongUse(f"{printable(path)}: no image in it ({', '.join(EXTENSIONS)}).")
            found += inside
        elif not path.is_file():
            raise WrongUse(f"{printable(path)}: no such file or folder.")
        elif path.suffix.lower() not in EXTENSIONS:
            wanted = ", ".join(EXTENSIONS)
            raise WrongUse(f"{printable(path)} is no image by its name; wanted: {wanted}.")
        else:
            found.append(str(path))
    return list(dict.fromkeys(found))


def readable(paths: Sequence[str], *, skip: bool) -> tuple[list[str], list[str]]:
    """(paths that can be read, why the others cannot).

    Raises:
        MissingData: unless `skip`, if one cannot, or if none can.
    """
    why = {path: fault(path) for path in paths}
    bad = [f"{printable(path)}: {printable(text)}" for path, text in why.items() if text]
    good = [path for path, text in why.items() if not text]
    if bad and not (skip and good):
        more = f"\nand {len(bad) - 3} more" if len(bad) > 3 else ""
        listed = "\n".join(bad[:3]) + more
        advice = "--skip-unreadable leaves them out." if good else "No image can be read."
        raise MissingData(f"{len(bad)} of {len(paths)} images cannot be read:\n{listed}\n{advice}")
    return good, bad


def main(argv: list[str]) -> int:
    """Reads, embeds, writes both files whole or not at all."""
    args = parser().parse_args(argv)
    if args.out.suffix != ".npy":
        raise WrongUse(f"--out {printable(args.out)}: the name must end in .npy.")
    require_folder_of(args.out)
    paths, left_out = readable(find_images(args.images), skip=args.skip_unreadable)
    pairs = [word for pair in args.set for word in pair]
    features, by = features_of(
        args.model, paths, pairs=pairs, checkpoint=args.checkpoint, batch=args.batch
    )
    table = args.out.with_suffix(".csv")
    with write_atomically(args.out) as part, part.open("wb") as stream:
        np.save(stream, features)
    with write_atomically(table) as part, part.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("image",))
        rows.writerows((os.path.abspath(path),) for path in paths)
    told = {
        "features": str(args.out),
        "images": str(table),
        "shape": list(features.shape),
        "model": by,
        "left_out": left_out,
    }
    print_json(told) if args.json else _print_text(told)
    return 0


def _print_text(told: dict[str, Any]) -> None:
    count, size = told["shape"]
    out = printable(told["features"])
    print(f"{out}: {count:,} images, {size} numbers each, by {printable(told['model'])}")
    for line in told["left_out"]:
        print(f"left out: {line}")
    print(f"{printable(told['images'])}: their paths, in the same order")
    print(f"next: python -m fastreid_cc label {out} --out labels.npz --csv labels.csv")


def is_onnx(model: str) -> bool:
    """Whether a network is named as an ONNX file."""
    return model.lower().endswith(".onnx")


def features_of(
    model: str,
    paths: Sequence[str],
    *,
    pairs: Sequence[str] = (),
    checkpoint: str = "",
    batch: int = 64,
) -> tuple[np.ndarray, str]:
    """Features of images f32 [N, D], unit rows, and the file they are by.

    Args:
        model: OUTPUT_DIR of a run, an .onnx file, or a config with MODEL.WEIGHTS.
        paths: of N images that can be read.
        pairs: config keys on top of it. checkpoint: file in the run's folder; "" = the newest.
        batch: images at a time.
    """
    if is_onnx(model):
        if pairs or checkpoint:
            raise WrongUse("--set and --checkpoint are for runs and configs, not for .onnx files.")
        found = _by_onnx(model, paths, batch)
    else:
        boot.activate()
        from ..plugin.offline.run_features import embed

        found = embed(model, paths, pairs=pairs, checkpoint=checkpoint, batch=batch)
    if not np.isfinite(found[0]).all():
        raise ClearError(f"{printable(model)} gives features that are not finite.")
    return found


def _by_onnx(model: str, paths: Sequence[str], size: int) -> tuple[np.ndarray, str]:
    """Features by onnxruntime on the CPU; neither torch nor fastreid is imported."""
    if not Path(model).is_file():
        raise WrongUse(f"{printable(model)}: no such file.")
    require_extra("export")
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  onnxruntime has kinds of its own
        reason = printable(" ".join(str(error).split())[:200])
        raise ClearError(f"{printable(model)} cannot be loaded: {reason}") from error
    wanted = {entry.name: entry.shape for entry in session.get_inputs()}
    shape = wanted.get("images", [])
    if len(shape) != 4 or not all(isinstance(size, int) for size in shape[2:]):
        raise ClearError(
            f"{printable(model)} takes {printable(wanted)}; wanted: images [batch, 3, H, W],"
            " as `export` writes it."
        )
    notes = session.get_modelmeta().custom_metadata_map
    fill = tuple(map(int, notes.get(PADDING, "").split()))
    parts = []
    for batch in _batches(paths, size):
        pixels = np.stack([read_pixels(path, shape[2:], fill) for path in batch])
        pixels = normalised(pixels) if NORMALISED in notes else pixels
        parts.append(session.run(["features"], {"images": pixels})[0])
    found = np.concatenate(parts).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True), model


def _batches(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]
