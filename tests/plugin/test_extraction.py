"""Extraction shows every image once, one camera at a time where batch statistics stand for it."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("plugin")

CAMERAS = np.repeat([0, 2, 5], [11, 4, 30])


@pytest.mark.parametrize("per_camera", [False, True])
def test_every_row_is_in_exactly_one_batch_of_bounded_size(per_camera: bool) -> None:
    from fastreid_cc.plugin.loading.extract import extraction_batches

    batches = extraction_batches(CAMERAS, 8, per_camera=per_camera, seed=0)
    assert sorted(np.concatenate(batches)) == list(range(45))
    assert max(len(batch) for batch in batches) <= 8


def test_batches_of_one_camera_are_near_equal_and_not_in_the_order_of_the_folder() -> None:
    from fastreid_cc.plugin.loading.extract import extraction_batches

    batches = extraction_batches(CAMERAS, 8, per_camera=True, seed=0)
    for batch in batches:
        assert len(set(CAMERAS[batch])) == 1
    assert [len(batch) for batch in batches] == [6, 5, 4, 8, 8, 7, 7]
    assert any((np.diff(batch) < 0).any() for batch in batches)
    again = extraction_batches(CAMERAS, 8, per_camera=True, seed=0)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
