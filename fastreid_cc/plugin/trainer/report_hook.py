"""What a run leaves for its report: versions at the start, the page at the end if asked for."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastreid
import torch
from fastreid.data import build as data_build
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

from ...parallel.launch_env import IMPORTS, SCRIPT
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


class ReportHook(HookBase):
    """Writes versions.json; with CC.REPORT writes report.html when the training has ended.

    The page is made by another process, so that nothing that goes wrong there – a missing package,
    too little memory, a hang of an hour – makes a finished training fail; it becomes a warning.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg, self.folder = cfg, Path(cfg.OUTPUT_DIR)

    def before_train(self) -> None:
        """Writes versions.json."""
        try:
            text = json.dumps(training_versions(self.cfg), indent=2) + "\n"
            (self.folder / "versions.json").write_text(text, "utf-8")
        except OSError as error:
            logger.warning(f"versions.json was not written: {error}")

    def after_train(self) -> None:
        """Writes report.html, unless training broke off."""
        if not self.cfg.CC.REPORT or self.trainer.iter < self.trainer.max_iter:
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
