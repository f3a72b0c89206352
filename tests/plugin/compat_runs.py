"""What the tests of the shims share: a small supervised trainer, a weight digest, a time limit."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tiny_data import make_market, options


def config(root: Path, output: Path, *extra: object) -> Any:
    """A config of the two-epoch training in tiny_data.py; the data set is written once."""
    from fastreid.config import get_cfg

    if not (root / "Market-1501-v15.09.15").is_dir():
        make_market(root)
    output.mkdir(parents=True, exist_ok=True)
    cfg = get_cfg()
    cfg.merge_from_list(options(output, *extra))
    return cfg


def build(root: Path, output: Path, *extra: object, resume: bool = False, seed: int = 0) -> Any:
    """A stock DefaultTrainer, ready to train."""
    import numpy as np
    from fastreid.engine import DefaultTrainer

    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer = DefaultTrainer(config(root, output, *extra))
    trainer.resume_or_load(resume=resume)
    return trainer


def weights(trainer: Any) -> torch.Tensor:
    """All parameters of a trainer's model in one vector."""
    return torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])


class TookTooLongError(Exception):
    """Raised by `time_limit`."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupts an endless loop in the main thread."""

    def ring(*_: object) -> None:
        raise TookTooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
