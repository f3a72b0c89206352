"""The hook that keeps a mean teacher beside the network fastreid trains."""

from __future__ import annotations

import logging
import os
from typing import Any

from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.checkpoint import Checkpointer

from ...networks.mean_teacher import MeanTeacher
from ...parallel.consistency import share_buffers
from ..modeling.registered_losses import WithLosses
from .update_hook import UpdateHook

logger = logging.getLogger("fastreid.cc.teacher")


class TeacherHook(UpdateHook):
    """Follows the network after every step; evaluated in its place if CC.TEACHER.EVALUATE.

    The teacher lives in the checkpoint's entry "cc_teacher", and at the end of training as a plain
    checkpoint of its own, `OUTPUT_DIR/teacher/model_final.pth`, which stock fastreid loads.

    Args:
        cfg: fastreid config with CC.TEACHER.ENABLED; works with and without CC.ENABLED.

    Attributes:
        teacher: from `before_train` on, for only then the network's weights are loaded.
    """

    teacher: MeanTeacher

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self._restored: dict[str, Any] | None = None  # until before_train

    @property
    def model(self) -> Any:
        """The teacher network, in evaluation mode."""
        return self.teacher.model

    @property
    def evaluated(self) -> Any:
        """The network that evaluation measures, by CC.TEACHER.EVALUATE."""
        return self.model if self.cfg.CC.TEACHER.EVALUATE else self.trainer.model

    def before_train(self) -> None:
        """Copies the network, or goes on from the checkpoint's teacher."""
        node = self.cfg.CC.TEACHER
        self.teacher = MeanTeacher(self.network, momentum=node.MOMENTUM, ramp=node.RAMP)
        if self._restored is not None:
            self.teacher.load_state_dict(self._restored)
            self._restored = None
        elif self.trainer.start_epoch > 0:
            logger.warning("The checkpoint has no teacher: it starts as a copy of the network.")
        if isinstance(self.network, WithLosses):
            self.network.step.teacher = self.model

    def evaluate(self) -> Any:
        """Results of the evaluated network; also what `DefaultTrainer.train` returns at its end."""
        self.trainer._last_eval_results = self.trainer.test(self.cfg, self.evaluated)
        return self.trainer._last_eval_results

    def after_update(self) -> None:
        """One step of the average; equal buffers on all processes."""
        self.teacher.update(self.network)
        share_buffers(self.model)

    def state_dict(self) -> dict[str, Any]:
        """The teacher's state: tensors and a number."""
        return self.teacher.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keeps a checkpoint's teacher until the training starts."""
        self._restored = state


class TeacherFileHook(HookBase):
    """Saves the finished teacher as a checkpoint of its own, after all that may still change it.

    Args:
        hook: of the teacher.
    """

    def __init__(self, hook: TeacherHook) -> None:
        self.hook = hook

    def after_epoch(self) -> None:
        """Saves at the end of the last epoch."""
        if self.trainer.epoch + 1 == self.trainer.max_epoch:
            folder = os.path.join(self.hook.cfg.OUTPUT_DIR, "teacher")
            if comm.is_main_process():
                os.makedirs(folder, exist_ok=True)
            Checkpointer(self.hook.model, folder, save_to_disk=comm.is_main_process()).save(
                "model_final"
            )
