"""Trainings of a benchmark, by the command that users type."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fastreid_cc.__main__ import main as command


def ended(folder: Path) -> bool:
    """Whether the run of a folder went through."""
    return (folder / "model_final.pth").is_file()


def train(folder: Path, words: Sequence[str], title: str) -> None:
    """Runs `python -m fastreid_cc train WORDS OUTPUT_DIR folder`.

    What it prints goes to folder.txt. Imports of this process serve it too: it is forked, and must
    not have used its threads before.

    Raises:
        SystemExit: the training failed; with the end of what it said.
    """
    line = ["train", *words, "OUTPUT_DIR", str(folder)]
    print(f"{title}: python -m fastreid_cc {shlex.join(line)}", flush=True)
    child = multiprocessing.get_context("fork").Process(target=_command, args=(folder, line))
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(Path(f"{folder}.txt").read_text()[-2000:])


def _command(folder: Path, line: list[str]) -> None:
    os.nice(10)
    folder.parent.mkdir(parents=True, exist_ok=True)
    out = os.open(f"{folder}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["fastreid_cc", *line]
    raise SystemExit(command(line))
