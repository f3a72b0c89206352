"""Two hooks that fastreid has and no config reaches: stochastic weight averaging, the profiler."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from fastreid.engine import hooks
from fastreid.engine.defaults import DefaultTrainer
from fastreid.solver.optim.swa import SWA

from ..patching import assign


def average_weights() -> None:
    """Makes `hooks.SWA` work.

    Breaks: it sets `trainer.optimizer`, a property without a setter (AttributeError, all versions);
    its optimizer skips the constructor of torch's, whose `step` wants hooks (torch >= 2.0), and
    clears gradients to None (see keep_flat_gradients). Does: the property hands the value to the
    inner trainer; the optimizer has empty hooks and clears as the one it wraps. Test:
    test_compat_training.py. May go: when fastreid uses torch.optim.swa_utils.
    """

    def get(self: Any) -> Any:
        return getattr(self._trainer, "optimizer", None)

    def put(self: Any, optimizer: Any) -> None:
        self._trainer.optimizer = optimizer

    stock_init = SWA.__init__

    @functools.wraps(stock_init)
    def __init__(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        stock_init(self, optimizer, *args, **kwargs)
        self.zero_grad = optimizer.zero_grad
        for name, value in vars(optimizer).items():
            if name.endswith(("_hooks", "_hooks_with_kwargs")) and isinstance(value, dict):
                vars(self).setdefault(name, type(value)())

    assign(DefaultTrainer, "optimizer", property(get, put))
    assign(SWA, "__init__", __init__)


def profile_on_any_device() -> None:
    """Makes `hooks.AutogradProfiler` work on newer torch and without CUDA.

    Breaks: newer torch has no `use_cuda` argument. Does: asks for CUDA events by the name this
    torch knows, and only if there is CUDA. Test: test_compat_training.py. May go: when fastreid
    uses torch.profiler.
    """
    profile: Any = torch.autograd.profiler.profile
    is_new = "use_device" in inspect.signature(profile).parameters
    by_name = {"use_device": "cuda"} if is_new else {"use_cuda": True}

    def before_step(self: Any) -> None:
        self._profiler = None
        if self._enable_predicate(self.trainer):
            wanted = self._use_cuda and torch.cuda.is_available()
            self._profiler = profile(**(by_name if wanted else {}))
            self._profiler.__enter__()

    assign(hooks.AutogradProfiler, "before_step", before_step)
