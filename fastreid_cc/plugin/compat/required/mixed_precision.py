"""Mixed precision away from float16 on CUDA: bfloat16 on processors that have it, or by choice."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from fastreid.engine import train_loop
from fastreid.utils.params import ContiguousParams

from fastreid_cc.parallel.processor import has_bfloat16_units

from ..patching import replace

logger = logging.getLogger("fastreid.cc.compat")


class AnyDeviceAMPTrainer(train_loop.AMPTrainer):
    """AMPTrainer that on a CPU trains under bfloat16 autocast, or in float32.

    Attributes:
        amp_dtype: float16 takes fastreid's own step, with a loss scale; bfloat16 needs none.
    """

    def __init__(
        self, model: Any, loader: Any, optimizer: Any, param_wrapper: Any, grad_scaler: Any = None
    ) -> None:
        if _device(model) == "cuda":
            super().__init__(model, loader, optimizer, param_wrapper, grad_scaler)
            self.amp_dtype = torch.float16
            return
        train_loop.SimpleTrainer.__init__(self, model, loader, optimizer, param_wrapper)
        self.grad_scaler, self.amp_dtype = None, torch.float32
        found = "but this processor has no bfloat16 units: float32"
        if has_bfloat16_units(torch.device("cpu")):
            self.amp_dtype, found = torch.bfloat16, "on the CPU: bfloat16 autocast, float32 weights"
        logger.info(f"SOLVER.AMP.ENABLED=True {found}")

    def run_step(self) -> None:
        """One step in `amp_dtype`."""
        if self.amp_dtype == torch.float16:
            super().run_step()
        elif self.amp_dtype == torch.bfloat16:
            self._bfloat16_step()
        else:
            train_loop.SimpleTrainer.run_step(self)

    def _bfloat16_step(self) -> None:
        """SimpleTrainer's step, the forward pass under autocast."""
        assert self.model.training, "the model must be in training mode"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast(_device(self.model), torch.bfloat16):
            loss_dict = self.model(data)
        self.optimizer.zero_grad()
        sum(loss_dict.values()).backward()
        self._write_metrics(loss_dict, data_time)
        self.optimizer.step()
        if isinstance(self.param_wrapper, ContiguousParams):
            self.param_wrapper.assert_buffer_is_valid()


def train_in_bfloat16() -> None:
    """Runs SOLVER.AMP.ENABLED on a CPU, and CC.AMP_DTYPE bfloat16 on CUDA.

    Breaks: `AMPTrainer.run_step` asserts CUDA, and knows float16 only. All versions. Does:
    `AnyDeviceAMPTrainer` in its place: on a CPU with bfloat16 units bfloat16 autocast, which needs
    no loss scale; on one without, where it would only be slower, float32; says which. On CUDA
    stock's float16 stays unless `use_bfloat16` was called. Weights, gradients and optimizer are
    float32 throughout. Test: test_compat_training.py. May go: when fastreid supports other devices.
    """
    replace(train_loop, "AMPTrainer", AnyDeviceAMPTrainer)


def use_bfloat16(trainer: Any) -> None:
    """Lets an AMPTrainer on CUDA work in bfloat16, without a loss scale."""
    trainer.amp_dtype, trainer.grad_scaler = torch.bfloat16, None


def _device(model: torch.nn.Module) -> str:
    return next(model.parameters()).device.type
