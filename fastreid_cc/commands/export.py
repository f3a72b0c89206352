"""a trained network as ONNX, checked by onnxruntime"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import boot
from ..errors import ClearError, WrongUse, printable
from ..files import write_atomically
from ..requirements import require_extra
from ._frame import add_checkpoint, make_parser, print_json, require_folder_of

TOLERANCE = 1e-4


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "export",
        "Writes one ONNX file: images float32 [batch, 3, H, W], RGB from 0 to 255, go in, features "
        "of unit length come out. The file is kept only if onnxruntime and torch agree to "
        f"{TOLERANCE:g} in every entry.",
        gives_json=True,
    )
    text = "the network: OUTPUT_DIR of a run, or a config (path or short name) with MODEL.WEIGHTS"
    made.add_argument("source", metavar="RUN", help=text)
    made.add_argument("pairs", nargs="*", metavar="KEY VALUE", help="config keys on top of it")
    text = "file to write (default: model.onnx in the run's folder)"
    made.add_argument("--out", metavar="FILE", help=text)
    add_checkpoint(made)
    made.add_argument("--untrained", action="store_true", help="random weights, to try a backbone")
    return made


def main(argv: list[str]) -> int:
    """Exports, compares, and tells the largest difference."""
    args = parser().parse_intermixed_args(argv)
    boot.activate()
    from ..plugin.offline import onnx_export, run_folder

    require_extra("export")
    cfg = run_folder.read_config(args.source, args.pairs)
    weights = _weights(args, cfg)
    if not args.out and not Path(args.source).is_dir():
        raise WrongUse("--out FILE.onnx is needed where no folder of a run is given.")
    out = Path(args.out) if args.out else Path(args.source) / "model.onnx"
    require_folder_of(out)
    embedder = onnx_export.build_embedder(cfg)
    if weights:
        run_folder.load_weights(embedder.model, weights)
    size = height, width = tuple(cfg.INPUT.SIZE_TEST)
    with write_atomically(out) as part:
        onnx_export.write_onnx(
            embedder,
            part,
            size=size,
            source=weights.name if weights else "",
            padding=cfg.MODEL.PIXEL_MEAN if cfg.INPUT.KEEP_RATIO else (),
        )
        difference = onnx_export.largest_difference(embedder, part, size=size)
        if not difference <= TOLERANCE:
            raise ClearError(
                f"onnxruntime and torch differ by {difference:.2g}, more than {TOLERANCE:g}: "
                f"{printable(out)} is not written."
            )
    told = {
        "file": str(out),
        "bytes": out.stat().st_size,
        "backbone": f"{cfg.MODEL.BACKBONE.NAME} {cfg.MODEL.BACKBONE.DEPTH}",
        "checkpoint": str(weights) if weights else None,
        "height": height,
        "width": width,
        "max_difference": difference,
        "tolerance": TOLERANCE,
    }
    print_json(told) if args.json else _print_text(told)
    return 0


def _weights(args: argparse.Namespace, cfg: Any) -> Path | None:
    from ..plugin.offline import run_folder

    if args.untrained:
        return None
    if Path(args.source).is_dir():
        return run_folder.find_checkpoint(args.source, args.checkpoint)
    return run_folder.find_weights(args.source, cfg)


def _print_text(told: Mapping[str, Any]) -> None:
    print(
        f"{printable(told['file'])}: {told['bytes'] / 1e6:.1f} MB, {told['backbone']}, weights of "
        f"{printable(told['checkpoint'] or 'none (random)')}\n"
        f"images [batch, 3, {told['height']}, {told['width']}] float32 RGB 0..255 -> features of "
        "unit length\nlargest difference between onnxruntime and torch: "
        f"{told['max_difference']:.1e} (allowed {TOLERANCE:g})"
    )
