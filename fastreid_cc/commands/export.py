"""a trained network as ONNX, pooling, neck and unit length inside, checked by onnxruntime"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import boot
from ..errors import ClearError, WrongUse, printable
from ..files import write_atomically
from ..requirements import require_extra
from ._frame import make_parser, print_json, require_folder_of

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
    made.add_argument("source", help="OUTPUT_DIR of a run, or a config file with MODEL.WEIGHTS")
    made.add_argument("pairs", nargs="*", metavar="KEY VALUE", help="config keys on top of it")
    made.add_argument("--out", help="file to write (default: model.onnx in the run's folder)")
    made.add_argument(
        "--checkpoint", default="", help="file in the run's folder, instead of the newest whole one"
    )
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
    out = _target(args)
    embedder = onnx_export.build_embedder(cfg)
    if weights:
        run_folder.load_weights(embedder.model, weights)
    size = tuple(cfg.INPUT.SIZE_TEST)
    with write_atomically(out) as part:
        onnx_export.write_onnx(embedder, part, size=size, source=weights.name if weights else "")
        difference = onnx_export.largest_difference(embedder, part, size=size)
        if not difference <= TOLERANCE:
            raise ClearError(
                f"onnxruntime and torch differ by {difference:.2g}, more than {TOLERANCE:g}: "
                f"{printable(out)} is not written."
            )
    _tell(args, out, cfg, weights, difference)
    return 0


def _weights(args: argparse.Namespace, cfg: Any) -> Path | None:
    from ..plugin.offline import run_folder

    if args.untrained:
        return None
    if Path(args.source).is_dir():
        return run_folder.find_checkpoint(args.source, args.checkpoint)
    if not cfg.MODEL.WEIGHTS:
        raise WrongUse(
            f"{printable(args.source)} names no weights: add MODEL.WEIGHTS file.pth, give the "
            "folder of a run instead, or --untrained."
        )
    path = Path(cfg.MODEL.WEIGHTS)
    if not path.is_file():
        raise ClearError(f"MODEL.WEIGHTS={printable(path)}: no such file.")
    return path


def _target(args: argparse.Namespace) -> Path:
    if not args.out and not Path(args.source).is_dir():
        raise WrongUse("--out FILE.onnx is needed where no folder of a run is given.")
    out = Path(args.out) if args.out else Path(args.source) / "model.onnx"
    require_folder_of(out)
    return out


def _tell(
    args: argparse.Namespace, out: Path, cfg: Any, weights: Path | None, worst: float
) -> None:
    height, width = cfg.INPUT.SIZE_TEST
    name = f"{cfg.MODEL.BACKBONE.NAME} {cfg.MODEL.BACKBONE.DEPTH}"
    if args.json:
        print_json(
            {
                "file": str(out),
                "bytes": out.stat().st_size,
                "backbone": name,
                "checkpoint": str(weights) if weights else None,
                "height": height,
                "width": width,
                "max_difference": worst,
                "tolerance": TOLERANCE,
            }
        )
        return
    print(
        f"{printable(out)}: {out.stat().st_size / 1e6:.1f} MB, {name}, weights of "
        f"{printable(weights) if weights else 'none (random)'}"
    )
    print(f"images [batch, 3, {height}, {width}] float32 RGB 0..255 -> features of unit length")
    print(f"largest difference between onnxruntime and torch: {worst:.1e} (allowed {TOLERANCE:g})")
