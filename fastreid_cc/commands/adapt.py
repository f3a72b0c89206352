"""clips and a tracker's text in, a model for that tracker out"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from ..errors import WrongUse, printable
from ..requirements import require_extra
from ._frame import make_parser, require_folder_of

ACTIVATES = False
#: How the names that `crops` gives are read; more neighbours than the crops of one tracklet (8) and
#: of a second visit before the same camera, which would else be all that an image finds; and pooled
#: tracklets, for an individual has few.
NAMES = (
    *("CC.FOLDER.CAMERA", "folder:0"),
    *("CC.FOLDER.TRACKLET", r"_(t\d+)_", "CC.FOLDER.TIME", r"_f(\d+)"),
    *("CC.DISTANCE.JACCARD.K1", "32", "CC.DISTANCE.JACCARD.K2", "6"),
    *("CC.LINKS.POOL", "0.5"),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "adapt",
        "Makes crops of what a tracker followed, trains on them without identities, and writes the"
        " model for the tracker: `crops`, `train` and `export` one after the other, each printed as"
        " it could be typed. The same command goes on where an earlier one was stopped.",
    )
    text = "a video or a folder of frames, then the tracker's text; again for another camera"
    made.add_argument("files", metavar="SOURCE MOT.txt", nargs="+", type=Path, help=text)
    text = "checkpoint to start from (MODEL.BACKBONE.PRETRAIN_PATH)"
    made.add_argument("--weights", type=Path, required=True, metavar="FILE", help=text)
    text = "folder for crops, run and model"
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help=text)
    text = "file or short name of a config"
    made.add_argument("--config", default="OwnImages/cc_osnet_x0_25", metavar="FILE", help=text)
    text = "who loads the model"
    made.add_argument(
        "--for", dest="taker", choices=("boxmot", "roboflow"), default="boxmot", help=text
    )
    text = "config keys on top (default: none)"
    made.add_argument("--set", nargs="+", default=[], metavar="KEY VALUE", help=text)
    return made


def steps(args: argparse.Namespace) -> list[list[str]]:
    """The commands that are still to be done."""
    crops, run = args.out / "crops", args.out / "run"
    resume = ["--resume"] if (run / "last_checkpoint").is_file() else []
    found = []
    if not crops.is_dir():
        found.append(["crops", *map(str, args.files), "--out", str(crops)])
    if not (run / "model_final.pth").is_file():
        found.append(
            [
                *("train", "--config-file", args.config, *resume),
                *("OUTPUT_DIR", str(run), "CC.FOLDER.ROOT", str(crops.absolute()), *NAMES),
                *("MODEL.BACKBONE.PRETRAIN_PATH", str(args.weights), *args.set),
            ]
        )
    return [*found, ["export", str(run), "--for", args.taker]]


def run(words: list[str]) -> int:
    """The exit status of a command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "fastreid_cc", *words]).returncode


def main(argv: list[str]) -> int:
    """Does what is left to do; the first step that fails ends it with its exit status."""
    args = parser().parse_args(argv)
    if args.taker == "boxmot":
        require_extra("export")
    if not args.weights.is_file():
        raise WrongUse(
            f"--weights {printable(args.weights)}: no such file; docs/weights.md says where one can"
            " be had."
        )
    require_folder_of(args.out)
    args.out.mkdir(exist_ok=True)
    for words in steps(args):
        print(f"$ python -m fastreid_cc {printable(shlex.join(words))}", flush=True)
        if status := run(words):
            print(f"adapt: {words[0]} failed; mend it and type the same again.", file=sys.stderr)
            return status
    return 0
