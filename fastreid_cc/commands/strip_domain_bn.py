"""a checkpoint with batch norm by domain as a plain one: the target's branch alone"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ..errors import ClearError, UnreadableFile, printable
from ..networks.domain_batch_norm import strip_state
from ._frame import make_parser


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "strip-domain-bn",
        "Writes a checkpoint that was trained with CC.SOURCES.BN domain, or rectified with gates "
        "that learnt nothing, without the sources' branches. It loads in stock fastreid and gives "
        "the same features.",
    )
    made.add_argument("checkpoint", help="e.g. OUTPUT_DIR/model_final.pth")
    made.add_argument("out", help="file to write")
    made.add_argument(
        "--gate-scale", type=float, default=2.0, help="CC.SOURCES.GATE_SCALE of the training"
    )
    return made


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    try:
        state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)["model"]
    except FileNotFoundError as error:
        raise ClearError(f"{printable(args.checkpoint)}: no such file.") from error
    except Exception as error:  # a torn or foreign file may raise anything
        raise UnreadableFile(
            f"{printable(args.checkpoint)} is no checkpoint of fastreid."
        ) from error
    try:
        folded = strip_state(state, gate_scale=args.gate_scale)
    except ValueError as error:
        raise ClearError(str(error)) from error
    out = Path(args.out)
    if not out.absolute().parent.is_dir():
        raise ClearError(f"{printable(args.out)}: there is no folder {out.absolute().parent}.")
    torch.save({"model": folded}, out)
    print(
        f"{len(state) - len(folded)} of {len(state)} entries left out; wrote {printable(args.out)}"
    )
    return 0
