"""For `--import`: each process writes what it trained to OUTPUT_DIR/rank<r>.pth."""

from pathlib import Path
from typing import Any

import torch
from fastreid.engine import DefaultTrainer
from fastreid.utils import comm

_train = DefaultTrainer.train


def train(self: DefaultTrainer) -> Any:
    results = _train(self)
    model = getattr(self.model, "module", self.model)
    state = {name: part.state_dict() for name, part in self.checkpointer.checkpointables.items()}
    path = Path(self.cfg.OUTPUT_DIR, f"rank{comm.get_rank()}.pth")
    torch.save({**state, "model": model.state_dict()}, path)
    return results


DefaultTrainer.train = train
