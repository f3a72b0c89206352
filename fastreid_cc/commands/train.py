"""trains from a config; `train SCRIPT.py ...` runs a script"""

from __future__ import annotations

import argparse

from .. import boot
from ._frame import at_least_1, make_parser


def parser() -> argparse.ArgumentParser:
    """The command line: fastreid's options, and the pairs that change the config."""
    made = make_parser(
        "train",
        "Trains from a config, as fast-reid's tools/train_net.py does. `train SCRIPT.py ...` runs a"
        " script instead, fast-reid's own or yours, unmodified, with the plug-in active.",
    )
    text = "YAML file, or a shipped config such as Market1501/cc_R50 (`config --files` lists them)"
    made.add_argument("--config-file", required=True, metavar="FILE", help=text)
    text = "go on from the last whole checkpoint in OUTPUT_DIR"
    made.add_argument("--resume", action="store_true", help=text)
    text = "measure the checkpoint MODEL.WEIGHTS on DATASETS.TESTS, train nothing"
    made.add_argument("--eval-only", action="store_true", help=text)
    text = "processes on this machine, one GPU each; without CUDA they share the CPU"
    made.add_argument("--num-gpus", type=at_least_1, default=1, metavar="N", help=text)
    text = "machines of the training"
    made.add_argument("--num-machines", type=at_least_1, default=1, metavar="N", help=text)
    text = "number of this machine, from 0 on"
    made.add_argument("--machine-rank", type=int, default=0, metavar="N", help=text)
    text = "where processes meet: tcp://HOST:PORT; auto finds a free port of one machine"
    made.add_argument("--dist-url", default="auto", metavar="URL", help=text)
    text = "config keys on top of the file, e.g. OUTPUT_DIR logs/a SOLVER.IMS_PER_BATCH 64"
    made.add_argument("opts", nargs="*", metavar="KEY VALUE", help=text)
    made.set_defaults(short_log=True)
    return made


def worker(args: argparse.Namespace) -> object:
    """One process of the training, here or spawned."""
    boot.activate()
    from ..plugin.training import train

    return train(args)


def main(argv: list[str]) -> int:
    """Trains to the end."""
    args = parser().parse_intermixed_args(argv)
    boot.activate()
    from ..plugin.training import start

    start(args, worker)
    return 0
