"""Which epoch does what: warm-up, then or instead source labels alone, then pseudo-labels."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from ...config import source_names

Stage = Literal["warm-up", "source", "labels"]


class Stages:
    """The stages of a run, from its config.

    Attributes:
        first_labels: first epoch with pseudo-labels.
    """

    def __init__(self, cfg: Any) -> None:
        cc = cfg.CC
        self.warm_up = cc.WARMUP.EPOCHS
        self.source = cc.SOURCES.PRETRAIN_EPOCHS if source_names(cfg) else 0
        self.first_labels = max(self.warm_up, self.source)
        self.period, self.last = cc.LABELS.PERIOD, cfg.SOLVER.MAX_EPOCH
        self.steps = cfg.SOLVER.STEPS
        self.source_steps = cc.SOURCES.STEPS or self.steps

    def at(self, epoch: int) -> Stage:
        """The stage an epoch belongs to."""
        if epoch < self.warm_up:
            return "warm-up"
        return "source" if epoch < self.source else "labels"

    def summary(self) -> str:
        """For people: which epochs have no pseudo-labels; "" where all have some."""
        if not self.first_labels:
            return ""
        last = min(self.first_labels, self.last) - 1
        epochs = f"epochs 0 to {last}" if last else "epoch 0"
        what = "every image is a class of its own (warm-up)" if self.warm_up else "source labels"
        after = f"; pseudo-labels from epoch {last + 1} on" if last + 1 < self.last else ""
        return f"{epochs}: {what}{after}"

    def is_due(self, epoch: int) -> bool:
        """Whether an epoch starts with a labelling."""
        return epoch >= self.first_labels and (epoch - self.first_labels) % self.period == 0

    def restart(self, trainer: Any) -> None:
        """Gives source training and label-free training a learning-rate schedule each.

        Before the first epoch of either: steps (of source training CC.SOURCES.STEPS) and cosine
        count from that epoch (the cosine as long as the stage), and before the second the rates are
        the base rates and the optimizer's moments are zero, as in two runs. Does nothing at other
        epochs and without source epochs.
        """
        epoch, source = trainer.epoch, self.source
        if not source or epoch not in (0, source):
            return
        schedule = trainer.scheduler["lr_sched"]
        length = self.last - source if epoch else source
        if epoch:
            schedule.last_epoch = 0
            trainer.optimizer.state.clear()
            for group, rate in zip(trainer.optimizer.param_groups, schedule.base_lrs, strict=True):
                group["lr"] = rate
        if isinstance(schedule, MultiStepLR):
            schedule.milestones = Counter(self.steps if epoch else self.source_steps)
        if isinstance(schedule, CosineAnnealingLR):
            warm_up = -(-trainer.warmup_iters // trainer.iters_per_epoch) if not epoch else 0
            schedule.T_max = max(length - max(warm_up, 0 if epoch else trainer.delay_epochs), 1)
