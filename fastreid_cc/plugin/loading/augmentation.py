"""Puts INPUT.COLOR_ROBUST, INPUT.CUT_OUT and INPUT.KEEP_RATIO into fastreid's transforms.

fastreid has no registry for transforms; `build_transforms` is wrapped once, under every name it was
imported by. With all three off the stock list comes back untouched.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from fastreid.data.transforms import build as stock
from fastreid.data.transforms.transforms import ToTensor
from torchvision.transforms import Resize

from ...config import from_config, get_key
from ...data.augment import ColorRobust
from ...data.cut_out import CutOut
from ...data.fit_and_pad import FitAndPad


def _wrap(original: Any) -> Any:
    @functools.wraps(original)
    def build_transforms(cfg: Any, is_train: bool = True) -> Any:
        """fastreid's transforms; in training with ours before ToTensor."""
        result = original(cfg, is_train)
        steps = result.transforms
        if cfg.INPUT.KEEP_RATIO:
            size = cfg.INPUT.SIZE_TRAIN if is_train else cfg.INPUT.SIZE_TEST
            mean = [round(value) for value in cfg.MODEL.PIXEL_MEAN]  # 0 once it is normalised
            resize = next(i for i, step in enumerate(steps) if isinstance(step, Resize))
            steps[resize] = FitAndPad(size, mean)
        for part in (ColorRobust, CutOut) if is_train else ():
            if get_key(cfg, f"{part.key}.ENABLED"):
                place = next(i for i, step in enumerate(steps) if isinstance(step, ToTensor))
                steps.insert(place, from_config(cfg, part))
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
