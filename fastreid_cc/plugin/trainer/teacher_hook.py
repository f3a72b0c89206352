"""The hook that keeps a mean teacher beside the network fastreid trains."""

from __future__ import annotations

import logging
import os
from typing import Any

from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.checkpoint import Checkpointer
from torch import nn

from ...networks.mean_teacher import MeanTeacher
from ...parallel.consistency import share_buffers

logger = logging.getLogger("fastreid.cc.teacher")


class TeacherHook(HookBase):
    """Follows the network after every step; evaluated in its place if CC.TEACHER.EVALUATE.

    The teacher lives in the checkpoint's entry "cc_teacher", and at the end of training as a plain
    checkpoint of its own, `OUTPUT_DIR/teacher/model_final.pth`, which stock fastreid loads.

    Args:
        cfg: fastreid config with CC.TEACHER.ENABLED; works with and without CC.ENABLED.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.teacher: Any = None  # MeanTeacher, from before_train on: weights are loaded then
        self._restored: Any = None
        self._scale: float | None = None

    @property
    def model(self) -> nn.Module:
        """The teacher network, in evaluation mode."""
        model: nn.Module = self.teacher.model
        return model

    def before_train(self) -> None:
        """Copies the network, or goes on from the checkpoint's teacher."""
        node = self.cfg.CC.TEACHER
        self.teacher = MeanTeacher(self._student(), momentum=node.MOMENTUM, ramp=node.RAMP)
        if self._restored is not None:
            self.teacher.load_state_dict(self._restored)
        elif self.trainer.start_epoch > 0:
            logger.warning("The checkpoint has no teacher: it starts as a copy of the network.")
        student: Any = self._student()
        if hasattr(student, "learn_from"):
            student.learn_from(self.model)
        if node.EVALUATE:
            self._evaluate_the_teacher()

    def _evaluate_the_teacher(self) -> None:
        """Lets the trainer's own `test`, called with its own network, measure the teacher."""
        stock, trained, teacher = self.trainer.test, self.trainer.model, self.teacher

        def test(cfg: Any, model: nn.Module) -> Any:
            return stock(cfg, teacher.model if model is trained else model)

        self.trainer.test = test

    def before_step(self) -> None:
        """Notes the loss scale, to see whether mixed precision skips the step."""
        scaler = self.trainer.grad_scaler
        self._scale = scaler.get_scale() if scaler is not None else None

    def after_step(self) -> None:
        """One step of the average, unless the network made none; equal buffers on all processes."""
        scaler = self.trainer.grad_scaler
        if scaler is None or scaler.get_scale() >= self._scale:
            self.teacher.update(self._student())
            share_buffers(self.model)

    def after_epoch(self) -> None:
        """Saves the finished teacher as a checkpoint of its own."""
        if self.trainer.epoch + 1 == self.trainer.max_epoch:
            folder = os.path.join(self.cfg.OUTPUT_DIR, "teacher")
            if comm.is_main_process():
                os.makedirs(folder, exist_ok=True)
            Checkpointer(self.model, folder, save_to_disk=comm.is_main_process()).save(
                "model_final"
            )

    def _student(self) -> nn.Module:
        model = self.trainer.model
        return getattr(model, "module", model)

    def state_dict(self) -> dict[str, Any]:
        """The teacher's state: tensors and a number."""
        state: dict[str, Any] = self.teacher.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keeps a checkpoint's teacher until the training starts."""
        self._restored = state
