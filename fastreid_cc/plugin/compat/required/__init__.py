"""Shims without which fastreid 1.4.0 does not run at all.

That is: names and arguments that newer versions of Python, numpy, torch and torchvision dropped or
changed, and what every training asks of CUDA and of a compiler. They cannot be switched off.
"""

from __future__ import annotations

from collections.abc import Callable

from . import (
    imports,
    launch_without_cuda,
    loader_without_cuda,
    mixed_precision,
    model_without_cuda,
    new_versions,
)

REQUIRED: tuple[Callable[[], None], ...] = (
    imports.restore_numpy_bool,
    imports.stand_in_for_bughook,
    imports.describe_environment_or_carry_on,
    loader_without_cuda.load_without_cuda,
    model_without_cuda.build_on_the_cpu_without_cuda,
    model_without_cuda.distribute_models_on_the_cpu,
    new_versions.build_affine_transform,
    new_versions.keep_flat_gradients,
    new_versions.evaluate_without_compiling,
    mixed_precision.train_in_bfloat16,
    launch_without_cuda.launch_without_cuda,
)
