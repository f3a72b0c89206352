"""For `--import`: each process writes what it trained on and what came out to REPORT/<rank>.pth."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import torch
from fastreid.engine import DefaultTrainer
from fastreid.utils import comm

from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast
from fastreid_cc.plugin.trainer.pseudo_label_hook import PseudoLabelHook

_losses, _train = ClusterContrast.losses, DefaultTrainer.train
_label = PseudoLabelHook._label
_labels: list[torch.Tensor] = []
_batches: list[torch.Tensor] = []
_domains: list[torch.Tensor] = []
_values: list[float] = []


def losses(self: ClusterContrast, outputs: Any, batch: Any, step: Any) -> Any:
    found = _losses(self, outputs, batch, step)
    _batches.append(torch.stack([batch.indices, batch.targets]))
    if batch.domains is not None:
        _domains.append(batch.domains)
    _values.append(float(sum(value.detach() for value in found.values())))
    return found


def label(self: PseudoLabelHook, epoch: int) -> None:
    _label(self, epoch)
    _labels.append(torch.from_numpy(self.labels.labels.copy()))


def train(self: DefaultTrainer) -> Any:
    results = _train(self)
    model = getattr(self.model, "module", self.model)
    hooks = [hook for hook in self._hooks if isinstance(hook, PseudoLabelHook)]
    report = {
        "parameters": dict(model.named_parameters()),
        "memory": hooks[0].memory.rows if hooks else None,
        "labels": _labels,
        "workers": multiprocessing.get_start_method(),
        "batches": _batches,
        "domains": _domains,
        "losses": _values,
    }
    torch.save(report, Path(os.environ["REPORT"], f"{comm.get_rank()}.pth"))
    return results


ClusterContrast.losses = losses
DefaultTrainer.train = train
PseudoLabelHook._label = label
