"""What a run leaves for its report: versions, command, times; the page at the end if asked for."""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fastreid
import torch
from fastreid.data import build as data_build
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

from ...parallel.launch_env import IMPORTS, SCRIPT
from ...report.runs import read_versions
from ...report.versions import installed

logger = logging.getLogger("fastreid.cc.report")
SECONDS = 3600


def training_versions(cfg: Any) -> dict[str, str]:
    """Versions, device and number of processes of this run."""
    is_cuda = str(cfg.MODEL.DEVICE).startswith("cuda") and torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if is_cuda else "cpu"
    return {
        "fastreid": f"{fastreid.__version__} (clone)",
        **installed(),
        "device": device,
        "processes": str(comm.get_world_size()),
    }


def command_line() -> str:
    """The command as it was typed; in a process that a script spawned, the script's part of it."""
    typed = getattr(sys, "orig_argv", sys.argv)
    spawned = any("multiprocessing" in argument for argument in typed)
    return shlex.join(["python", *sys.argv] if spawned else typed)


def now() -> str:
    """Date and time in UTC, e.g. "2026-11-21 17:20:05 UTC"."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


class ReportHook(HookBase):
    """Writes versions.json, once more when the training has ended; then with CC.REPORT report.html.

    The page is made by another process, so that nothing that goes wrong there – a missing package,
    too little memory, a hang of an hour – makes a finished training fail; it becomes a warning.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg, self.folder = cfg, Path(cfg.OUTPUT_DIR)
        self.file, self.versions = self.folder / "versions.json", dict[str, str]()

    def before_train(self) -> None:
        """Writes versions.json; a resumed run keeps when it first began."""
        self.versions = {**training_versions(self.cfg), "command": command_line(), "started": now()}
        if self.trainer.iter > 0:
            self.versions |= {"started": read_versions(self.file).get("started", "unknown")}
            self.versions |= {"resumed": now()}
        self._write()

    def _write(self) -> None:
        try:
            self.file.write_text(json.dumps(self.versions, indent=2) + "\n", "utf-8")
        except OSError as error:
            logger.warning(f"versions.json was not written: {error}")

    def after_train(self) -> None:
        """Says when it ended and writes report.html, unless training broke off."""
        if self.trainer.iter < self.trainer.max_iter:
            return
        self.versions["ended"] = now()
        self._write()
        if not self.cfg.CC.REPORT:
            return
        try:
            done = subprocess.run(
                self._command(),
                env=self._environment(),
                timeout=SECONDS,
                text=True,
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except (OSError, subprocess.SubprocessError) as error:
            logger.warning(f"No report: {error}")
            return
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            logger.warning(f"No report: {' / '.join(lines[-3:]) or done.returncode}")
        else:
            logger.info(f"Report: {self.folder / 'report.html'}")

    def _command(self) -> list[str]:
        names = [name for name in os.environ.get(IMPORTS, "").split(",") if name]
        ours = [part for name in names for part in ("--import", name)]
        return [sys.executable, "-m", "fastreid_cc", *ours, "report", str(self.folder)]

    def _environment(self) -> dict[str, str]:
        path = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
        kept = {k: v for k, v in os.environ.items() if k not in (SCRIPT, IMPORTS)}
        found = {**kept, "FASTREID_DATASETS": str(data_build._root)}
        return {**found, "PYTHONPATH": os.pathsep.join(filter(None, path))}
