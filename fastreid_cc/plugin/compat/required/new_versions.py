"""Calls whose meaning newer torch and torchvision changed, and the compiler that may be missing."""

from __future__ import annotations

from typing import Any

from fastreid.data.transforms import build as transforms
from fastreid.evaluation.reid_evaluation import ReidEvaluator
from fastreid.solver import build as solver
from fastreid.utils import comm
from fastreid.utils.params import ContiguousParams

from ..patching import View, around, assign, wrap


def build_affine_transform() -> None:
    """Builds INPUT.AFFINE.ENABLED's transform by the names torchvision has now.

    Breaks: `T.RandomAffine(resample=, fillcolor=)`, TypeError on torchvision >= 0.12. Does: passes
    them by their new names, in that module only. Test: test_compat_transforms.py. May go: when
    fastreid uses the new names.
    """
    stock = transforms.T

    def random_affine(*args: Any, resample: Any = 0, fillcolor: Any = 0, **kwargs: Any) -> Any:
        modes = stock.InterpolationMode
        mode = {0: modes.NEAREST, 2: modes.BILINEAR, 3: modes.BICUBIC}[int(resample or 0)]
        return stock.RandomAffine(*args, interpolation=mode, fill=fillcolor, **kwargs)

    assign(transforms, "T", View(stock, RandomAffine=random_affine))


def keep_flat_gradients() -> None:
    """Keeps zero_grad from detaching fastreid's flat gradient buffer.

    Breaks: on torch >= 2.0 `optimizer.zero_grad()` sets gradients to None. fastreid's optimizer
    holds one flat parameter whose `.grad` is the buffer all gradients are views of; once it is None
    every later step does nothing, without a word. Does: the optimizer that `build_optimizer`
    returns always zeroes in place, and `ContiguousParams.buffer_is_valid` also looks at the flat
    gradients. Torch 1.13 did the same by default. Test: test_compat_training.py::
    test_stock_training_is_a_silent_no_op. May go: when fastreid passes set_to_none=False.
    """
    wrap(solver, "build_optimizer", _build_zeroing_in_place)
    wrap(ContiguousParams, "buffer_is_valid", _is_valid_with_gradients)


def _build_zeroing_in_place(stock: Any, cfg: Any, model: Any, contiguous: bool = True) -> Any:
    optimizer, wrapper = stock(cfg, model, contiguous)
    if contiguous:
        zero_grad = optimizer.zero_grad
        optimizer.zero_grad = lambda set_to_none=False: zero_grad(set_to_none=False)
    return optimizer, wrapper


def _is_valid_with_gradients(stock: Any, params: Any) -> bool:
    flat = zip(params._param_buffer, params._grad_buffer, strict=True)
    return all(p.grad is g for p, g in flat) and stock(params)


@around(ReidEvaluator, "_compile_dependencies")
def evaluate_without_compiling(stock: Any, evaluator: Any) -> None:
    """Ranks in numpy, unless the Cython code is compiled already.

    Breaks: the first evaluation runs `make` inside site-packages with the python on PATH and calls
    `sys.exit(1)` where Cython or a compiler is missing, before the checkpoint is saved. All
    versions. Does: never compiles; `fastreid.evaluation.rank` falls back to numpy by itself (equal
    results; 0.8 s against 0.9 s for 3000 queries and 15000 gallery images). Test:
    test_compat_evaluation.py. May go: when fastreid ships the compiled module.
    """
    comm.synchronize()
