"""Image transforms whose arguments torchvision renamed."""

from __future__ import annotations

import warnings
from typing import Any

from .imports import fastreid_module
from .patching import assign


class _Transforms:
    """torchvision.transforms, with the old argument names of RandomAffine."""

    def __init__(self, stock: Any) -> None:
        self._stock = stock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)

    def RandomAffine(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        """Builds `RandomAffine` from `resample` and `fillcolor`."""
        if "resample" in kwargs:
            modes = self._stock.InterpolationMode
            table = {0: modes.NEAREST, 2: modes.BILINEAR, 3: modes.BICUBIC}
            kwargs["interpolation"] = table[int(kwargs.pop("resample") or 0)]
        if "fillcolor" in kwargs:
            kwargs["fill"] = kwargs.pop("fillcolor")
        return self._stock.RandomAffine(*args, **kwargs)


def build_affine_transform() -> None:
    """INPUT.AFFINE.ENABLED.

    Breaks: `T.RandomAffine(resample=, fillcolor=)`, TypeError on torchvision >= 0.12. Does: passes
    them by their new names, in that module only. Test: test_compat_transforms.py. May go: when
    fastreid uses the new names.
    """
    module = fastreid_module("data.transforms.build")
    assign(module, "T", _Transforms(module.T))


def read_pixels_quietly() -> None:
    """`to_tensor`, and messages between processes.

    Breaks: a UserWarning, "TypedStorage is deprecated", from torch >= 2.0, in the middle of the
    log. Does: ignores it where fastreid causes it. Test: test_compat_transforms.py. May go: when
    fastreid makes tensors from bytes through numpy.
    """
    warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning, r"fastreid\.")
