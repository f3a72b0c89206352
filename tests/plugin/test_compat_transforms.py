"""The affine transform builds and does what its old arguments say; warnings of old calls."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("off", ["", "silence_deprecations"])
def test_images_and_distances_are_computed_without_a_warning(off):
    """In a process of its own: pytest sets filters anew for every test."""
    script = """
import torch
import fastreid_cc.plugin
from fastreid.data.transforms.functional import to_tensor
from fastreid.utils.compute_dist import build_dist
from PIL import Image

torch.set_warn_always(True)
assert to_tensor(Image.new("RGB", (2, 3), "white")).shape == (3, 3, 2)
assert build_dist(torch.zeros(2, 4), torch.zeros(3, 4), "euclidean").shape == (2, 3)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "FASTREID_CC_WITHOUT_REPAIRS": off},
    )
    assert done.returncode == 0, done.stderr
    for warning in ("TypedStorage is deprecated", "addmm_ is deprecated"):
        assert (warning in done.stderr) == bool(off), done.stderr
