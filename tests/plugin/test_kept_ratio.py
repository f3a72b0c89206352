"""INPUT.KEEP_RATIO and INPUT.CUT_OUT in fastreid's transforms; ratios that do not vary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mined_runs import LABELLED
from PIL import Image
from tiny_runs import build, config

from fastreid_cc.config import faults
from fastreid_cc.data.cut_out import CutOut
from fastreid_cc.data.fit_and_pad import FitAndPad
from fastreid_cc.errors import BadConfig

pytestmark = pytest.mark.usefixtures("plugin")
KEPT = ("INPUT.KEEP_RATIO", True)


def steps(cfg: Any, *, is_train: bool) -> list[Any]:
    from fastreid.data.transforms import build_transforms

    found: list[Any] = build_transforms(cfg, is_train=is_train).transforms
    return found


def test_the_resize_gives_way_in_training_and_in_tests(tmp_path: Path) -> None:
    cfg = config(tmp_path, *KEPT, "INPUT.SIZE_TEST", [40, 20], "MODEL.PIXEL_MEAN", [9.6, 8, 7])
    for is_train, size in ((True, (32, 16)), (False, (40, 20))):
        (fit,) = [step for step in steps(cfg, is_train=is_train) if isinstance(step, FitAndPad)]
        assert (fit.size, fit.fill) == (size, (10, 8, 7))
        pixels = fit(Image.new("RGB", (10, 10), "white"))
        assert pixels.size == size[::-1] and np.asarray(pixels)[0, 0].tolist() == [10, 8, 7]


def test_without_the_keys_the_list_is_fastreids(tmp_path: Path) -> None:
    plain = [type(step).__name__ for step in steps(config(tmp_path), is_train=True)]
    assert "FitAndPad" not in plain and "CutOut" not in plain
    covered = steps(config(tmp_path, "INPUT.CUT_OUT.ENABLED", True), is_train=True)
    assert [type(step).__name__ for step in covered if not isinstance(step, CutOut)] == plain
    names = [type(step).__name__ for step in covered]
    assert names.index("CutOut") == names.index("ToTensor") - 1
    test = steps(config(tmp_path, "INPUT.CUT_OUT.ENABLED", True), is_train=False)
    assert not any(isinstance(step, CutOut) for step in test)


@pytest.mark.parametrize("options", [(), LABELLED, (*LABELLED, "INPUT.CUT_OUT.ENABLED", False)])
def test_a_training_on_images_of_one_ratio_is_refused(
    options: tuple[object, ...], tmp_path: Path
) -> None:
    """Generated people are all twice as high as wide; by our loaders and by fastreid's own."""
    stock = ("MODEL.LOSSES.NAME", "('CrossEntropyLoss',)", "CC.LOSS_STAGES", "()")
    more = stock if options[-1:] == (False,) else ()
    with pytest.raises(BadConfig, match=r"all of the 48 images looked at, of 48, have one ratio"):
        build(config(tmp_path, *options, *more, *KEPT))


def test_a_ratio_is_kept_within_a_frame_only(tmp_path: Path) -> None:
    found = faults(config(tmp_path, *LABELLED, *KEPT, "INPUT.SIZE_TEST", [256]))
    assert ["set INPUT.SIZE_TEST=(256,) to (height, width)" in fault for fault in found] == [True]
