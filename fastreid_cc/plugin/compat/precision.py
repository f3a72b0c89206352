"""Mixed precision away from float16 on CUDA: bfloat16 on processors that have it, or by choice."""

from __future__ import annotations

import functools
import logging
import time
from typing import Any

import torch

from fastreid_cc.labeling.neighbors._precision import has_bfloat16_units

from .imports import fastreid_module
from .patching import assign

logger = logging.getLogger("fastreid.cc.compat")


def train_in_bfloat16_without_cuda() -> None:
    """SOLVER.AMP.ENABLED on a CPU, and bfloat16 on CUDA.

    Breaks: `AMPTrainer.run_step` asserts CUDA, and knows float16 only. All versions. Does: on a CPU
    with bfloat16 units trains under bfloat16 autocast, which needs no loss scale; on one without,
    where it would only be slower, in float32; says which. On CUDA stock's float16 stays unless
    `trainer.amp_dtype` is set to bfloat16 (CC.AMP_DTYPE). Weights, gradients and optimizer are
    float32 throughout. Test: test_compat_training.py. May go: when fastreid supports other devices.
    """
    module = fastreid_module("engine.train_loop")
    trainer_class, simple = module.AMPTrainer, module.SimpleTrainer
    stock_init, stock_step = trainer_class.__init__, trainer_class.run_step

    @functools.wraps(stock_init)
    def __init__(
        self: Any,
        model: Any,
        data_loader: Any,
        optimizer: Any,
        param_wrapper: Any,
        grad_scaler: Any = None,
    ) -> None:
        if _device(model) == "cuda":
            stock_init(self, model, data_loader, optimizer, param_wrapper, grad_scaler)
            self.amp_dtype = torch.float16
            return
        simple.__init__(self, model, data_loader, optimizer, param_wrapper)
        self.grad_scaler = None
        self.amp_dtype = (
            torch.bfloat16 if has_bfloat16_units(torch.device("cpu")) else torch.float32
        )
        logger.info(
            "SOLVER.AMP.ENABLED=True on the CPU: bfloat16 autocast, float32 weights"
            if self.amp_dtype == torch.bfloat16
            else "SOLVER.AMP.ENABLED=True, but this processor has no bfloat16 units: float32"
        )

    @functools.wraps(stock_step)
    def run_step(self: Any) -> None:
        if self.amp_dtype == torch.float16:
            stock_step(self)
        elif self.amp_dtype == torch.bfloat16:
            _bfloat16_step(self)
        else:
            simple.run_step(self)

    assign(trainer_class, "__init__", __init__)
    assign(trainer_class, "run_step", run_step)


def use_bfloat16(trainer: Any) -> None:
    """Lets a stock AMPTrainer on CUDA work in bfloat16, without a loss scale."""
    trainer.amp_dtype, trainer.grad_scaler = torch.bfloat16, None


def _bfloat16_step(self: Any) -> None:
    """One step of SimpleTrainer, the forward pass under autocast."""
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
    if hasattr(self.param_wrapper, "assert_buffer_is_valid"):
        self.param_wrapper.assert_buffer_is_valid()


def _device(model: torch.nn.Module) -> str:
    return next(model.parameters()).device.type
