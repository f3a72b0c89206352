"""The hooks of what an epoch of labelled or label-free training works with: loader, losses."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from fastreid.engine.train_loop import HookBase

from ...config import losses_at
from ...parallel.collectives import unwrapped
from ..compat import close_loader, swap_loader
from ..loading.labelled_images import LabelledImages
from ..seeding import seed_globals
from .run_log import forget_losses

logger = logging.getLogger("fastreid.cc.hooks")


class LabelledHook(HookBase):
    """Makes the loader of every epoch of a training with true labels, see `LabelledImages`.

    Args:
        cfg: fastreid config without CC.ENABLED.
        images: the loader that stands in for the stock one.
    """

    def __init__(self, cfg: Any, images: LabelledImages) -> None:
        self.cfg, self.images, self.transform = cfg, images, images.transform

    @property
    def targets(self) -> np.ndarray:
        """i64 [N], class of each image."""
        return self.images.targets

    def before_epoch(self) -> None:
        """Seeds, then the loader."""
        seed_globals(self.cfg.CC.SEED, self.trainer.epoch)
        loader = self.images.epoch_loader(self.cfg, self.trainer.epoch)
        swap_loader(self.trainer._trainer, loader)

    def after_train(self) -> None:
        """Ends the loader's workers."""
        close_loader(self.trainer._trainer.data_loader)


class LossStageHook(HookBase):
    """Tells the network which losses an epoch has, by CC.LOSS_STAGES; says so where that changes.

    It is asked anew before every epoch, so a resumed run is in the stage of its epoch.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    def before_epoch(self) -> None:
        """Sets the stage's losses."""
        names = losses_at(self.cfg, self.trainer.epoch)
        step: Any = unwrapped(self.trainer.model).step
        if step.loss_stage != frozenset(names):
            logger.info(f"epoch {self.trainer.epoch}: losses from here on: {', '.join(names)}")
        step.loss_stage = frozenset(names)
        if self.trainer.epoch and names != losses_at(self.cfg, self.trainer.epoch - 1):
            forget_losses(self.trainer.storage)
