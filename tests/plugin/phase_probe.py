"""For `--import`: notes in the file PHASE_FILE what the process is doing, for kill_and_resume.py.

The file holds a phase and how often it has begun, such as "checkpoint 3".
"""

import functools
import os
from collections import Counter
from typing import Any

from fastreid.engine.defaults import DefaultTrainer
from fastreid.engine.train_loop import SimpleTrainer
from fastreid.utils.checkpoint import Checkpointer

from fastreid_cc.labeling import PseudoLabeler
from fastreid_cc.plugin.trainer import pseudo_label_hook as hooks

_file = os.open(os.environ["PHASE_FILE"], os.O_WRONLY | os.O_CREAT, 0o644)
_begun: Counter[str] = Counter()
_now = ["start-up"]


def _note(phase: str) -> None:
    _now[0] = phase
    os.pwrite(_file, f"{phase} {_begun[phase]}".ljust(40).encode(), 0)


def _noted(function: Any, phase: str) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        before = _now[0]
        _begun[phase] += 1
        _note(phase)
        try:
            return function(*args, **kwargs)
        finally:
            _note(before if before != "start-up" else "between")

    return wrapper


hooks.extract_features = _noted(hooks.extract_features, "extraction")
PseudoLabeler.__call__ = _noted(PseudoLabeler.__call__, "labelling")  # type: ignore[method-assign]
SimpleTrainer.run_step = _noted(SimpleTrainer.run_step, "step")
Checkpointer.save = _noted(Checkpointer.save, "checkpoint")
DefaultTrainer.test = classmethod(_noted(DefaultTrainer.test.__func__, "evaluation"))
_note("start-up")
