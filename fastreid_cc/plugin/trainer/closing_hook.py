"""The last lines of a training that ended well: what it wrote, and what to do with it."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

from fastreid.engine.train_loop import HookBase

from ...errors import printable
from .comparison_hook import ComparisonHook

logger = logging.getLogger("fastreid.cc.engine")


class ClosingHook(HookBase):
    """Says at the end of a training what its folder holds and which commands go on from there.

    Args:
        cfg: of the run.
        comparison: the hook that compared the network with that of the start, if there is one.
    """

    def __init__(self, cfg: Any, comparison: ComparisonHook | None = None) -> None:
        self.cfg, self.comparison = cfg, comparison

    def after_train(self) -> None:
        """Says it, unless training broke off."""
        if self.trainer.iter >= self.trainer.max_iter:
            measured = bool(getattr(self.trainer, "_last_eval_results", None))
            compared = "" if self.comparison is None else self.comparison.said()
            logger.info(closing_lines(self.cfg, is_measured=measured, compared=compared))


def closing_lines(cfg: Any, *, is_measured: bool, compared: str = "") -> str:
    """What a run wrote and what comes next.

    Args:
        cfg: of the run.
        is_measured: there were figures at the end.
        compared: what is to be said of the network and that of the start, if anything.
    """
    names = ["model_final.pth", "model_best.pth", "metrics.json", "config.yaml", "log.txt"]
    there = [name for name in names if Path(cfg.OUTPUT_DIR, name).is_file()]
    folder = shlex.quote(printable(cfg.OUTPUT_DIR))
    lines = [f"The training has ended. {printable(cfg.OUTPUT_DIR)} holds {', '.join(there)}."]
    if not is_measured:
        why = "there is no test set (for a folder: CC.FOLDER.IDENTITY with TEST_INCLUDE or QUERY)"
        if cfg.TEST.EVAL_PERIOD <= 0:
            why = f"TEST.EVAL_PERIOD={cfg.TEST.EVAL_PERIOD}"
        lines.append(f"Nothing was measured: {why}.")
    lines += [compared] if compared else []
    lines.append(f"next: python -m fastreid_cc report {folder}      # a page to look at")
    if cfg.CC.ENABLED:
        lines.append(f"      python -m fastreid_cc clusters {folder}    # who is with whom")
    lines.append(f"      python -m fastreid_cc export {folder}      # ONNX, to use it")
    return "\n".join(lines)
