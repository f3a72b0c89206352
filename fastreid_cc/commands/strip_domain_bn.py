"""a checkpoint with batch norm by domain as a plain one"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .. import boot
from ..errors import ClearError, WrongUse, printable
from ..files import write_atomically
from ..networks.domain_batch_norm import strip_state
from ._frame import make_parser, require_folder_of


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "strip-domain-bn",
        "Writes a checkpoint that was trained with CC.SOURCES.BN domain, or rectified with gates "
        "that learnt nothing, without the sources' branches. It loads in stock fastreid and gives "
        "the same features.",
    )
    text = "file to read, e.g. OUTPUT_DIR/model_final.pth"
    made.add_argument("checkpoint", metavar="FILE", help=text)
    made.add_argument("out", metavar="OUT", help="file to write")
    text = "CC.SOURCES.GATE_SCALE of the training"
    made.add_argument("--gate-scale", type=float, default=2.0, metavar="NUMBER", help=text)
    return made


def main(argv: list[str]) -> int:
    """Reads the checkpoint, writes the plain one whole or not at all."""
    args = parser().parse_args(argv)
    source, out = Path(args.checkpoint), Path(args.out)
    if not source.is_file():
        raise WrongUse(f"{printable(source)}: no such file.")
    require_folder_of(out)
    boot.activate()
    from ..plugin.offline.run_folder import read_checkpoint

    state = read_checkpoint(source)["model"]
    try:
        stripped = strip_state(state, gate_scale=args.gate_scale)
    except ValueError as error:
        raise ClearError(str(error)) from error
    with write_atomically(out) as part:
        torch.save({"model": stripped}, part)
    print(f"{len(state) - len(stripped)} of {len(state)} entries left out; wrote {printable(out)}")
    return 0
