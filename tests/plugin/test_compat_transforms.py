"""The affine transform builds and does what its old arguments say."""

from __future__ import annotations

import subprocess
import sys

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


def test_pixels_are_read_without_a_warning():
    """In a process of its own: pytest sets filters anew for every test."""
    script = (
        "import fastreid_cc.plugin\n"
        "from fastreid.data.transforms.functional import to_tensor\n"
        "from PIL import Image\n"
        "assert to_tensor(Image.new('RGB', (2, 3), 'white')).shape == (3, 3, 2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0 and "TypedStorage" not in done.stderr, done.stderr
