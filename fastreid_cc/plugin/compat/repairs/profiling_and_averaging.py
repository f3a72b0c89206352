"""Two hooks that fastreid has and no config reaches: stochastic weight averaging, the profiler."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from fastreid.engine import hooks
from fastreid.engine.defaults import DefaultTrainer
from fastreid.solver.optim.swa import SWA

from ..patching import around, assign, wrap


def average_weights() -> None:
    """Makes `hooks.SWA` work.

    Breaks: it sets `trainer.optimizer`, a property without a setter (AttributeError, all versions);
    its optimizer skips the constructor of torch's, whose `step` wants hooks (torch >= 2.0), and
    clears gradients to None (see keep_flat_gradients). Does: the property hands the value to the
    inner trainer; the optimizer has empty hooks and clears as the one it wraps. Test:
    test_compat_training.py. May go: when fastreid uses torch.optim.swa_utils.
    """

    inner = property(
        lambda trainer: getattr(trainer._trainer, "optimizer", None),
        lambda trainer, optimizer: setattr(trainer._trainer, "optimizer", optimizer),
    )
    assign(DefaultTrainer, "optimizer", inner)
    wrap(SWA, "__init__", _init_whole)


def _init_whole(stock: Any, swa: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
    stock(swa, optimizer, *args, **kwargs)
    swa.zero_grad = optimizer.zero_grad
    for name, value in vars(optimizer).items():
        if name.endswith(("_hooks", "_hooks_with_kwargs")) and isinstance(value, dict):
            vars(swa).setdefault(name, type(value)())


@around(hooks.AutogradProfiler, "before_step")
def profile_on_any_device(stock: Any, hook: Any) -> None:
    """Makes `hooks.AutogradProfiler` work on newer torch and without CUDA.

    Breaks: newer torch has no `use_cuda` argument. Does: asks for CUDA events by the name this
    torch knows, and only if there is CUDA. Test: test_compat_training.py. May go: when fastreid
    uses torch.profiler.
    """
    profile: Any = torch.autograd.profiler.profile
    is_new = "use_device" in inspect.signature(profile).parameters
    by_name = {"use_device": "cuda"} if is_new else {"use_cuda": True}
    hook._profiler = None
    if hook._enable_predicate(hook.trainer):
        wanted = hook._use_cuda and torch.cuda.is_available()
        hook._profiler = profile(**(by_name if wanted else {}))
        hook._profiler.__enter__()
