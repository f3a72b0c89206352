"""Lets INPUT.COLOR_ROBUST.* add the colour-robust augmentation to fastreid's training transforms.

fastreid has no registry for transforms; `build_transforms` is wrapped once, under every name it was
imported by. With ENABLED False the stock list comes back untouched.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from fastreid.data.transforms import build as stock
from fastreid.data.transforms.transforms import ToTensor

from ...config import from_config
from ...data.augment import ColorRobust


def _wrap(original: Any) -> Any:
    @functools.wraps(original)
    def build_transforms(cfg: Any, is_train: bool = True) -> Any:
        """fastreid's transforms; in training with the colour-robust one before ToTensor."""
        result = original(cfg, is_train)
        if is_train and cfg.INPUT.COLOR_ROBUST.ENABLED:
            steps = result.transforms
            place = next(i for i, step in enumerate(steps) if isinstance(step, ToTensor))
            steps.insert(place, from_config(cfg, ColorRobust))
        return result

    build_transforms.fastreid_cc = True  # type: ignore[attr-defined]
    return build_transforms


def register() -> None:
    """Replaces `build_transforms` wherever fastreid, or this plug-in, holds it; once."""
    original = stock.build_transforms
    if getattr(original, "fastreid_cc", False):
        return
    wrapped = _wrap(original)
    for name, module in list(sys.modules.items()):
        if name.startswith(("fastreid.", "fastreid_cc.")) and module is not None:
            if vars(module).get("build_transforms") is original:
                module.build_transforms = wrapped  # type: ignore[attr-defined]


register()
