"""Shims without which fastreid 1.4.0 does not run at all.

That is: names and arguments that newer versions of Python, numpy, torch and torchvision dropped or
changed, and what every training asks of CUDA and of a compiler. They cannot be switched off.
"""

from __future__ import annotations

from ..patching import shims_of

REQUIRED = shims_of(
    __name__,
    *("imports", "loader_without_cuda", "model_without_cuda", "new_versions", "mixed_precision"),
    "launch_without_cuda",
)
