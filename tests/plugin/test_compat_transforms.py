"""The affine transform builds and does what its old arguments say."""

from __future__ import annotations

import pytest
from compat_runs import config
from PIL import Image

pytestmark = pytest.mark.usefixtures("plugin")


def test_the_affine_transform_builds(data_root, tmp_path):
    from fastreid.data.transforms import build_transforms

    from fastreid_cc.plugin.compat import disabled

    cfg = config(data_root, tmp_path, "INPUT.AFFINE.ENABLED", True)
    with disabled("build_affine_transform"), pytest.raises(TypeError):
        build_transforms(cfg)
    steps = build_transforms(cfg).transforms
    affine = next(t for t in steps if type(t).__name__ == "RandomAffine")
    assert affine.interpolation.value == "nearest"
    assert affine.fill == 0
    assert affine(Image.new("RGB", (8, 8), "white")).size == (8, 8)
