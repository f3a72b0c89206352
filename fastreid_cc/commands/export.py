"""a trained network as ONNX, or as BoxMOT and reid load it"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__, boot
from ..errors import ClearError, WrongUse, printable
from ..files import write_atomically
from ..requirements import require_extra
from ._frame import add_checkpoint, make_parser, print_json, require_folder_of

TOLERANCE = 1e-4
LEAST_HALF = 0.999  # cosine to float32 below which a file in half precision is not kept
CROPS = 64  # to calibrate with, and as many others to compare with
TAKERS = ("onnx", "boxmot", "roboflow")


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
    text = "who loads the file: boxmot = ONNX and a JSON file beside it for BoxMOT, roboflow ="
    text += " TorchScript for Roboflow's reid; both take images as those normalise them"
    made.add_argument("--for", dest="taker", choices=TAKERS, default="onnx", help=text)
    smaller = made.add_mutually_exclusive_group()
    text = "float16 inside: half the bytes, faster on GPUs only; images and features stay float32"
    smaller.add_argument("--half", action="store_true", help=text)
    text = f"int8 inside (ONNX only), ranges measured on at most {CROPS} training images"
    smaller.add_argument("--int8", action="store_true", help=text)
    text = "file to write (default: model.onnx in the run's folder, model_boxmot_int8.onnx ...)"
    made.add_argument("--out", metavar="FILE", help=text)
    add_checkpoint(made)
    made.add_argument("--untrained", action="store_true", help="random weights, to try a backbone")
    return made


def main(argv: list[str]) -> int:
    """Exports, compares, and tells the largest difference."""
    args = parser().parse_intermixed_args(argv)
    boot.activate()
    from ..plugin.offline import onnx_export, run_folder

    if args.taker == "roboflow" and args.int8:
        raise WrongUse(
            "--int8 is for ONNX files; for roboflow, whose files are TorchScript: --half."
        )
    if args.taker != "roboflow":
        require_extra("export")
    cfg = run_folder.read_config(args.source, args.pairs)
    weights = _weights(args, cfg)
    out = _out(args)
    require_folder_of(out)
    embedder = onnx_export.build_embedder(cfg)
    if weights:
        run_folder.load_weights(embedder.model, weights)
    told = {
        "file": str(out),
        "for": args.taker,
        "precision": _precision(args),
        "backbone": f"{cfg.MODEL.BACKBONE.NAME} {cfg.MODEL.BACKBONE.DEPTH}",
        "checkpoint": str(weights) if weights else None,
        "height": cfg.INPUT.SIZE_TEST[0],
        "width": cfg.INPUT.SIZE_TEST[1],
        "resize": _resize(args.taker, cfg),
        **_write(args, cfg, embedder, out, weights.name if weights else ""),
    }
    told["bytes"] = out.stat().st_size
    print_json(told) if args.json else _print_text(told)
    return 0


def _precision(args: argparse.Namespace) -> str:
    return "float16" if args.half else "int8" if args.int8 else "float32"


def _out(args: argparse.Namespace) -> Path:
    """The file to write."""
    ending = ".pt" if args.taker == "roboflow" else ".onnx"
    if args.out:
        if args.taker == "roboflow" and not args.out.endswith(ending):
            raise WrongUse(f"--out {printable(args.out)}: a TorchScript file's name ends in .pt.")
        return Path(args.out)
    if not Path(args.source).is_dir():
        raise WrongUse(f"--out FILE{ending} is needed where no folder of a run is given.")
    taker = "" if args.taker == "onnx" else f"_{args.taker}"
    smaller = "_half" if args.half else "_int8" if args.int8 else ""
    return Path(args.source) / f"model{taker}{smaller}{ending}"


def _resize(taker: str, cfg: Any) -> str:
    """How crops are to be brought to size, and how the tracker does it."""
    kept = cfg.INPUT.KEEP_RATIO
    own = "Pillow, bicubic" + (", ratio kept, padded with the mean colour" if kept else "")
    if taker == "onnx":
        return own
    if taker == "boxmot":
        return f"{own}; BoxMOT: OpenCV, bilinear" + (", and preprocess resize_pad" if kept else "")
    if kept:
        return f"{own}; reid's letterbox pads below and to the right only: features differ"
    return f"{own}; reid: the same with interpolation='bicubic', else bilinear"


def _write(args: argparse.Namespace, cfg: Any, embedder: Any, out: Path, source: str) -> Any:
    """Writes the file and what belongs beside it, if it does what the network does."""
    from ..plugin.offline import handed_over, onnx_export

    size, tracker = tuple(cfg.INPUT.SIZE_TEST), args.taker != "onnx"
    padding = cfg.MODEL.PIXEL_MEAN if cfg.INPUT.KEEP_RATIO else ()
    fill = [round(value) for value in padding]
    crops = handed_over.sample_crops(cfg, size=size, fill=fill, count=2 * CROPS)
    known, others = crops.pixels[::2], crops.pixels[1::2]  # to calibrate with, to compare with
    told: dict[str, Any] = {"crops": crops.what}
    with write_atomically(out) as part:
        if args.taker == "roboflow":
            notes = {
                "images": f"float32, RGB, (x / 255 - mean) / std of ImageNet, [batch, 3, {size}]",
                "features": "float32, unit length",
                "producer": f"fastreid_cc {__version__}",
                "checkpoint": source,
            }
            network = handed_over.for_tracker(embedder, half=args.half)
            handed_over.write_torchscript(network, part, size=size, notes=notes)
        else:
            network = handed_over.FromNormalised(embedder).eval() if tracker else embedder
            how = {"size": size, "takes_normalised": tracker}
            onnx_export.write_onnx(network, part, source=source, padding=padding, **how)
            told["max_difference"] = onnx_export.largest_difference(embedder, part, **how)
            told["tolerance"] = TOLERANCE
            if not told["max_difference"] <= TOLERANCE:
                raise ClearError(
                    f"onnxruntime and torch differ by {told['max_difference']:.2g}, more than "
                    f"{TOLERANCE:g}: {printable(out)} is not written."
                )
            if args.half:
                handed_over.to_half(part)
            if args.int8:
                handed_over.to_int8(part, handed_over.as_given(known, tracker=tracker))
                told["calibrated_on"] = len(known)
        run = handed_over.runner(part, torchscript=args.taker == "roboflow")
        found = handed_over.compare(embedder, run, others, tracker=tracker)
        least = -1.0 if args.int8 else LEAST_HALF if args.half else 1 - TOLERANCE
        if not found.least >= least:
            raise ClearError(
                f"features differ from the network's: least cosine {found.least:.4f}, wanted "
                f"{least:g}. {printable(out)} is not written."
            )
    if args.taker == "boxmot":
        beside = handed_over.write_boxmot_metadata(
            out,
            backbone=f"{cfg.MODEL.BACKBONE.NAME}_{cfg.MODEL.BACKBONE.DEPTH}",
            size=size,
            padded=bool(padding),
            precision=_precision(args),
            source=source,
        )
        told["metadata"] = str(beside)
    return {**told, "compared_on": len(others), **found._asdict()}


def _weights(args: argparse.Namespace, cfg: Any) -> Path | None:
    from ..plugin.offline import run_folder

    if args.untrained:
        return None
    if Path(args.source).is_dir():
        return run_folder.find_checkpoint(args.source, args.checkpoint)
    return run_folder.find_weights(args.source, cfg)


def _print_text(told: Mapping[str, Any]) -> None:
    pixels = "RGB 0..255" if told["for"] == "onnx" else "RGB (x / 255 - mean) / std of ImageNet"
    print(
        f"{printable(told['file'])}: {told['bytes'] / 1e6:.1f} MB, {told['precision']}, "
        f"{told['backbone']}, weights of {printable(told['checkpoint'] or 'none (random)')}\n"
        f"images [batch, 3, {told['height']}, {told['width']}] float32 {pixels} -> features of "
        f"unit length\nresize: {told['resize']}"
    )
    if "max_difference" in told:
        print(
            f"largest difference between onnxruntime and torch: {told['max_difference']:.1e} "
            f"(allowed {TOLERANCE:g})" + (", in float32" if told["precision"] != "float32" else "")
        )
    if "calibrated_on" in told:
        print(f"ranges measured on {told['calibrated_on']} crops")
    print(
        f"cosine to the float32 features: least {told['least']:.4f}, mean {told['mean']:.4f}, on "
        f"{told['compared_on']} other crops ({told['crops']})\n{told['milliseconds']:.2f} ms per "
        "crop on one core, in batches of 16"
    )
    if "metadata" in told:
        print(f"{printable(told['metadata'])}: what BoxMOT reads beside it; keep both together")
