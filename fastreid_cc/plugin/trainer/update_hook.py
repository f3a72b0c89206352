"""Base of the hooks that follow the optimizer."""

from __future__ import annotations

from typing import Any

from fastreid.engine.train_loop import HookBase

from ...parallel.collectives import unwrapped


class UpdateHook(HookBase):
    """Calls `after_update` after each step that changed the weights.

    In float16 a step whose gradients overflow is left out and the loss scale lowered instead; such
    a step is none.
    """

    _scale = 1.0

    @property
    def network(self) -> Any:
        """The network that is trained, without DistributedDataParallel around it."""
        return unwrapped(self.trainer.model)

    def before_step(self) -> None:
        """Notes the loss scale."""
        self._scale = self._loss_scale()

    def after_step(self) -> None:
        """Calls `after_update`, unless the loss scale fell: the step was left out."""
        if self._loss_scale() >= self._scale:
            self.after_update()

    def _loss_scale(self) -> float:
        scaler = self.trainer.grad_scaler
        return 1.0 if scaler is None else float(scaler.get_scale())

    def after_update(self) -> None:
        """What follows a step."""
        raise NotImplementedError
